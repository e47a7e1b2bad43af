//! How a relay takes leave when it is the proxy that ends it: nothing that is under way is cut, and
//! both sides are told so that they know what to do next.

use std::time::Duration;

use super::{Protocol, Relay, registry};
use crate::relay::EndReason;
use crate::relay::life::Side;
use crate::relay::timers::Tick;
use crate::relay::websocket::Goodbye;

/// How long both sides of a WebSocket have to answer our Close, and a server to end an event.
const FAREWELL: Duration = Duration::from_secs(5);

impl Relay {
    /// Ends it for `reason` on the proxy's own account, at `by` at the latest: both sides of a
    /// WebSocket are told, and have some time to answer; an event that has begun is waited for.
    /// What is half-closed just ends.
    pub(super) fn leave(&mut self, reason: EndReason, by: Tick) -> Result<(), EndReason> {
        if self.has_given_way(reason) {
            return Ok(());
        }
        if self.life.is_leaving() {
            self.life.leave(reason, by);
            return Ok(());
        }
        let enough = registry::now().plus(Tick::count(FAREWELL));
        match &mut self.protocol {
            Protocol::WebSocket(websocket) if self.life.closing().is_none() => {
                let goodbye = if reason.is_move() { Goodbye::ServiceRestart } else { Goodbye::GoingAway };
                let to_client = websocket.close(Side::Client, goodbye);
                let to_server = websocket.close(Side::Server, Goodbye::GoingAway);
                self.life.leave(reason, by.min(enough));
                self.send_down(&to_client.unwrap_or_default())?;
                self.send_up(&to_server.unwrap_or_default())?;
                Ok(())
            }
            Protocol::Events(events, _) if self.life.closing().is_none() => {
                if events.is_between() && !self.down.is_blocked() {
                    return Err(self.part(reason));
                }
                self.life.leave(reason, by.min(enough));
                Ok(())
            }
            Protocol::WebSocket(_) | Protocol::Events(..) | Protocol::Unknown => Err(reason),
        }
    }

    /// Whether our Closes were said and answered, as far as anybody is there to do so, or the event is
    /// complete.
    pub(super) fn has_taken_leave(&self) -> bool {
        let websocket = match &self.protocol {
            Protocol::WebSocket(websocket) => websocket,
            Protocol::Events(events, _) => {
                return self.life.is_leaving() && events.is_between() && !self.down.is_blocked();
            }
            Protocol::Unknown => return false,
        };
        self.life.is_leaving()
            && (self.client_ended || !websocket.awaits(Side::Client))
            && (!self.down.is_open() || !websocket.awaits(Side::Server))
            && !self.down.is_blocked()
            && !self.up.is_blocked()
    }
}

/// How long the client of a stream that moves waits before it connects again: around the time that it
/// has been told before, if any. `dice`, any number, spreads those that are told at the same time.
pub(super) fn come_again(told: Option<Duration>, dice: u32) -> Duration {
    const AROUND: Duration = Duration::from_secs(1);
    let around = told.unwrap_or(AROUND);
    around / 2 + around * (dice % 1024) / 1024
}
