//! What operators ask of the process while it runs, from wherever: signals, the admin address, the
//! command line. One desk takes it all, so that nothing happens at the same time as anything else.

use tokio::sync::{mpsc, oneshot};

/// What is asked.
#[derive(Debug)]
pub enum Command {
    /// To read the configuration file again, and to put it in force.
    Reload(oneshot::Sender<Reloaded>),
}

/// What became of a new configuration: what it changes, one line each; or why nothing has changed.
pub type Reloaded = Result<Vec<String>, String>;

/// Where commands are given.
#[derive(Clone, Debug)]
pub struct Desk(mpsc::Sender<Command>);

/// Commands that may wait for their turn.
const WAITING_MAX: usize = 16;

/// The desk is closed, or has too much to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the process is stopping, or has too many commands to obey already")]
pub struct Closed;

impl Desk {
    /// A desk, and what is given there, in order.
    pub fn new() -> (Self, mpsc::Receiver<Command>) {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        (Self(sender), receiver)
    }

    /// Has the configuration file read again.
    ///
    /// # Errors
    /// When nobody obeys any more.
    pub async fn reload(&self) -> Result<Reloaded, Closed> {
        let (reply, answer) = oneshot::channel();
        self.0.try_send(Command::Reload(reply)).map_err(|_| Closed)?;
        answer.await.map_err(|_| Closed)
    }
}
