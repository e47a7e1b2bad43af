//! What the main thread does while workers serve: obeys signals and commands, and changes what is
//! in force. Whatever may fail comes first, so that a configuration is in force whole or not at all.

use std::io;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::MissedTickBehavior;

use super::StartError;
use super::assembly::Assembly;
use super::drains::{self, Drains};
use super::manager::Manager;
use super::posts::{Duty, Post};
use super::rebalance::{self, Rebalancer};
use super::sockets::bind_shared;
use super::succession::{self, Door, Program};
use super::upkeep::{News, Upkeep};
use super::worker::Assignment;
use crate::admin::{self, Admin, InForce};
use crate::command::{Command, NoTarget, Reloaded, ServerOf, Target};
use crate::config::{self, Config, OnDown};
use crate::listener::Listener;
use crate::observe::access_log::{AccessLog, Writer};
use crate::observe::traces::{Exporter, Tracer};
use crate::relay::inbox::Workers;
use crate::service::Service;
use crate::upstream::Turn;

/// What there is to change.
pub(super) struct Control {
    pub(super) config: Config,
    /// Where that came from; `None` when from no file.
    pub(super) file: Option<PathBuf>,
    pub(super) assembly: Assembly,
    pub(super) service: Arc<Service>,
    pub(super) upkeep: Upkeep,
    pub(super) posts: Vec<Arc<Post>>,
    /// Where each worker hears of new posts.
    pub(super) crew: Vec<mpsc::Sender<Assignment>>,
    pub(super) workers: Arc<Workers>,
    pub(super) drains: Drains,
    pub(super) rebalancer: Rebalancer,
    pub(super) admin: Arc<Admin>,
    /// The task that accepts at the admin address, on a copy of this socket.
    pub(super) admin_task: Option<AbortHandle>,
    pub(super) admin_socket: Option<std::net::TcpListener>,
    /// Where the next process asks for what there is.
    pub(super) door: Option<Door>,
    /// What the next process runs, when it is this one that starts it.
    pub(super) program: Program,
    /// Who watches over this process.
    pub(super) manager: Manager,
    pub(super) log: Option<Writer>,
    pub(super) exporter: Option<Exporter>,
    pub(super) stop: watch::Sender<bool>,
}

/// A post, and the listener that it gets; `None` when it is a new one.
type Manned = (Arc<Post>, Option<Listener>);

/// How the process came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Every worker has ended by itself.
    Graceful,
    /// The operator asked a second time.
    AtOnce,
}

/// Why it is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// Of this signal.
    Signal(&'static str),
    /// This process has taken over.
    HandedOver(u32),
}

/// What the process may be told by signals.
pub(super) struct Signals {
    pub(super) terminate: Signal,
    pub(super) interrupt: Signal,
    hang_up: Signal,
    user_2: Signal,
}

impl Control {
    /// Goes on until the process is to end, and sees to that.
    pub(super) async fn run(
        &mut self,
        commands: mpsc::Receiver<Command>,
        threads: Vec<JoinHandle<()>>,
    ) -> io::Result<End> {
        let mut signals = Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            user_2: signal(SignalKind::user_defined2())?,
        };
        tracing::info!("ready");
        self.manager.tell("READY=1");
        match self.obey(commands, &mut signals).await {
            Reason::Signal(name) => {
                tracing::info!("{name}: stopping; no new connections, what is under way may finish");
                self.manager.tell("STOPPING=1");
                self.door = None;
            }
            Reason::HandedOver(pid) => {
                tracing::info!("process {pid} goes on; what could not go may finish here");
                tokio::time::sleep(SETTLE).await;
            }
        }
        self.stop.send_replace(true);
        // Its own copies of their sockets go with them.
        self.posts.drain(..).for_each(|post| post.order(Duty::Leave));
        // The admin address answers until the last worker is done.
        let joined =
            tokio::task::spawn_blocking(move || threads.into_iter().map(JoinHandle::join).any(|end| end.is_err()));
        tokio::select! {
            joined = joined => {
                if joined.unwrap_or(true) {
                    tracing::error!("a worker panicked");
                }
                self.admin.end().await;
                return Ok(End::Graceful);
            }
            _ = signals.interrupt.recv() => tracing::warn!("SIGINT again: stopping at once"),
            _ = signals.terminate.recv() => tracing::warn!("SIGTERM again: stopping at once"),
        }
        Ok(End::AtOnce)
    }

    /// Returns why it is to stop.
    async fn obey(&mut self, mut commands: mpsc::Receiver<Command>, signals: &mut Signals) -> Reason {
        let mut seconds = tokio::time::interval(Duration::from_secs(1));
        seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut looks = tokio::time::interval(rebalance::EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = signals.terminate.recv() => return Reason::Signal("SIGTERM"),
                _ = signals.interrupt.recv() => return Reason::Signal("SIGINT"),
                _ = signals.hang_up.recv() => drop(self.reload("SIGHUP").await),
                _ = signals.user_2.recv() => {
                    if let Some(reason) = self.start_next(signals).await {
                        return reason;
                    }
                }
                stream = succession::knock(self.door.as_ref()) => {
                    if let Some(reason) = self.admit_next(stream, signals).await {
                        return reason;
                    }
                }
                Some(command) = commands.recv() => self.obey_command(command).await,
                _ = seconds.tick(), if self.drains.is_any() => self.drains.look(&self.workers).await,
                now = looks.tick() => self.rebalancer.look(&self.service.front(), &self.workers, now.into_std()).await,
                news = self.upkeep.news() => self.hear(news).await,
            }
        }
    }

    /// Does what is asked. Whoever has asked may have left.
    async fn obey_command(&mut self, command: Command) {
        let (front, workers) = (self.service.front(), self.workers.clone());
        match command {
            Command::Reload(reply) => drop(reply.send(self.reload("reload").await)),
            Command::Drain(target, pace, reply) => {
                if target == Target::Process {
                    self.service.drain(true);
                }
                drop(reply.send(self.drains.begin(target, pace, &front, &workers).await));
            }
            Command::Undrain(target, reply) => {
                if target == Target::Process {
                    self.service.drain(false);
                }
                drop(reply.send(self.drains.undo(&target, &front, &workers).await));
            }
            Command::State(server, state, reply) => {
                drop(reply.send(self.drains.set_state(server, state, &front, &workers).await));
            }
            Command::Weight(server, weight, reply) => drop(reply.send(self.weigh(&server, weight).await)),
            Command::Plan(upstream, reply) => {
                drop(reply.send(self.rebalancer.plan(&upstream, &front, &workers).await));
            }
            Command::Rebalance(upstream, moves, reply) => {
                drop(reply.send(self.rebalancer.order(&upstream, moves, &front, &workers).await));
            }
        }
    }

    async fn hear(&mut self, news: News) {
        match news {
            News::Found => self.found().await,
            News::Missed => self.upkeep.look_after(&self.service.front().upstreams),
            News::Turned(turn) => self.hear_of(&turn).await,
        }
    }

    async fn hear_of(&mut self, turn: &Turn) {
        let front = self.service.front();
        let Some(upstream) = front.upstreams.iter().find(|upstream| upstream.name == turn.upstream) else { return };
        self.upkeep.look_at(upstream);
        if turn.is_up {
            self.drains.regain(turn.server, &self.workers).await;
        } else if upstream.on_down == OnDown::Close {
            self.drains.lose(turn.server, upstream.drain.spread, &self.workers).await;
        }
    }

    /// Has a server have this weight; `None`: that in the file.
    async fn weigh(&mut self, server: &ServerOf, weight: Option<NonZeroU32>) -> Result<(), NoTarget> {
        let front = self.service.front();
        let (upstream, found) = drains::server(server, &front)?;
        found.weigh(weight);
        let by = if weight.is_some() { "by order" } else { "as the file says" };
        tracing::info!("upstream {}: server {} has weight {}, {by}", upstream.name, found.name, found.weight());
        self.balance_anew().await;
        Ok(())
    }

    /// Puts the servers in force that are found now.
    async fn found(&mut self) {
        self.balance_anew().await;
        tracing::info!("the servers that are found now are in force");
    }

    /// Puts the configuration in force once more, over the servers and the weights that there are now.
    pub(super) async fn balance_anew(&mut self) {
        let before = self.service.front();
        let after = Arc::new(self.assembly.front_with(&self.config, &self.upkeep.findings(), Some(&before)));
        self.upkeep.look_after(&after.upstreams);
        self.service.replace(after.clone());
        self.drains.follow(&before, &after, &self.workers).await;
    }

    /// Reads the file again, puts what it says in force, and tells what that changes.
    async fn reload(&mut self, asked_by: &str) -> Reloaded {
        self.manager.reloading();
        let reloaded = self.read_and_apply().await;
        self.manager.tell("READY=1");
        match &reloaded {
            Ok(changes) if changes.is_empty() => tracing::info!("{asked_by}: the configuration says what it said"),
            Ok(changes) => {
                tracing::info!("{asked_by}: another configuration is in force, {} change(s)", changes.len());
                changes.iter().for_each(|change| tracing::info!("{asked_by}: {change}"));
            }
            Err(why) => tracing::error!("{asked_by}: refused, nothing has changed: {why}"),
        }
        self.assembly.observer.metrics.reloaded(reloaded.is_ok());
        self.admin.process.reloaded(&reloaded);
        reloaded
    }

    async fn read_and_apply(&mut self) -> Reloaded {
        let file = self.file.clone().ok_or("the configuration came from no file that could be read again")?;
        let loaded = tokio::task::spawn_blocking(move || config::load(&file)).await;
        let config = loaded.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        self.apply(config).await.map_err(|error| error.to_string())
    }

    /// Puts `config` in force. What it needs is there before anything changes.
    async fn apply(&mut self, mut config: Config) -> Result<Vec<String>, StartError> {
        let mut changes = config::difference(&self.config, &config);
        if config.threads != self.config.threads {
            changes.push(format!("threads: stays {} until the process is another one", self.config.threads));
            config.threads = self.config.threads;
        }
        let posts = self.posts_of(&config)?;
        let admin = self.admin_of(&config)?;
        let log = AccessLog::open(&config.access_log, self.assembly.observer.metrics.log_lines_lost.clone())?;
        let traces = match config.traces.clone() {
            traces if traces == self.config.traces => None,
            None => Some(None),
            Some(traces) => {
                let metrics = self.assembly.observer.metrics.spans();
                let opened = tokio::task::spawn_blocking(move || Tracer::open(&traces, metrics)).await;
                Some(Some(opened.map_err(io::Error::from)??))
            }
        };
        if config.hand_over != self.config.hand_over {
            self.door = config.hand_over.as_deref().map(Door::make).transpose()?;
            self.door.iter_mut().for_each(Door::hang);
        }

        self.upkeep.ask(&config, &self.assembly.observer.metrics);
        let before = self.service.front();
        let after = Arc::new(self.assembly.front(&config, &self.upkeep.findings(), Some(&before)));
        self.upkeep.look_after(&after.upstreams);
        self.service.replace(after.clone());
        self.drains.follow(&before, &after, &self.workers).await;
        self.serve_at(posts, &config);
        self.serve_admin(admin, &config);
        let (log, writer) = log.map_or((None, None), |(log, writer)| (Some(Arc::new(log)), Some(writer)));
        self.assembly.observer.access_log.store(log);
        if let Some(writer) = std::mem::replace(&mut self.log, writer) {
            // Once nobody writes any more it ends; nobody has to wait for that.
            tokio::task::spawn_blocking(|| writer.join());
        }
        if let Some(traces) = traces {
            let (tracer, exporter) = traces.unzip();
            self.assembly.observer.tracer.store(tracer.map(Arc::new));
            if let Some(exporter) = std::mem::replace(&mut self.exporter, exporter) {
                tokio::task::spawn_blocking(|| exporter.join()); // As with the log.
            }
        }
        self.config = config;
        self.tell_admin();
        Ok(changes)
    }

    /// Notes for operators what is in force now.
    pub(super) fn tell_admin(&self) {
        let addresses = self.posts.iter().map(|post| post.address).collect();
        self.admin.process.puts_in_force(InForce { config: Arc::new(self.config.clone()), addresses });
    }

    /// The posts of `config`: those that stay with the listener that they get, and new ones.
    fn posts_of(&self, config: &Config) -> Result<Vec<Manned>, StartError> {
        let metrics = &self.assembly.observer.metrics;
        let mut left = self.posts.clone();
        let post = |listener: &config::Listener| match left.iter().position(|post| post.is_at(listener)) {
            Some(at) => {
                let post = left.remove(at);
                let renewed = post.listener().renewed(listener, metrics)?;
                Ok((post, Some(renewed)))
            }
            None => {
                let post = Post::bind(listener, config.threads.get(), &config.tcp_keepalive, metrics)?;
                Ok((Arc::new(post), None))
            }
        };
        config.listeners.iter().map(post).collect()
    }

    fn serve_at(&mut self, posts: Vec<Manned>, config: &Config) {
        let mut stay = Vec::new();
        // They are in the order of the file.
        for ((post, listener), as_written) in posts.into_iter().zip(&config.listeners) {
            match listener {
                Some(listener) => post.replace(listener, as_written, &config.tcp_keepalive),
                None => self.assign(&post),
            }
            stay.push(post);
        }
        for post in &self.posts {
            if !stay.iter().any(|other| Arc::ptr_eq(other, post)) {
                tracing::info!("no longer listening on {}; its connections stay", post.address);
                post.order(Duty::Leave);
            }
        }
        self.posts = stay;
    }

    /// Has every worker accept at `post`.
    pub(super) fn assign(&self, post: &Arc<Post>) {
        tracing::info!("listening on {}", post.address);
        for (worker, copy) in post.copies(self.crew.len()) {
            let assigned = copy.map_err(|error| error.to_string()).and_then(|socket| {
                let assignment = Assignment { post: post.clone(), socket };
                self.crew[worker].try_send(assignment).map_err(|error| error.to_string())
            });
            if let Err(error) = assigned {
                tracing::error!("worker {worker} cannot listen on {}: {error}", post.address);
            }
        }
    }

    /// Another socket for the admin address, if it is another one.
    fn admin_of(&self, config: &Config) -> Result<Option<std::net::TcpListener>, StartError> {
        let bind = |config: &Config| config.admin.as_ref().map(|admin| admin.bind);
        match bind(config) {
            Some(address) if bind(&self.config) != Some(address) => bind_admin(address, config).map(Some),
            _ => Ok(None),
        }
    }

    fn serve_admin(&mut self, socket: Option<std::net::TcpListener>, config: &Config) {
        self.admin.set_token(config.admin.as_ref().and_then(|admin| admin.token.clone()));
        if (socket.is_some() || config.admin.is_none())
            && let Some(task) = self.admin_task.take()
        {
            task.abort();
            self.admin_socket = None;
        }
        if let Some(Err(error)) = socket.map(|socket| self.listen_for_admin(socket)) {
            tracing::error!("admin: {error}");
        }
    }

    /// Serves the admin address on `socket`.
    pub(super) fn listen_for_admin(&mut self, socket: std::net::TcpListener) -> io::Result<()> {
        tracing::info!("admin on {}", socket.local_addr()?);
        self.admin_socket = Some(socket);
        self.accept_admin()
    }

    /// Accepts at the admin address, if there is one.
    pub(super) fn accept_admin(&mut self) -> io::Result<()> {
        let Some(socket) = &self.admin_socket else { return Ok(()) };
        let listener = TcpListener::from_std(socket.try_clone()?)?;
        self.admin_task = Some(tokio::spawn(admin::serve(listener, self.admin.clone())).abort_handle());
        Ok(())
    }
}

/// How long requests may still come on connections that were accepted right before a hand-over.
const SETTLE: Duration = Duration::from_millis(300);

/// A socket for the admin address.
pub(super) fn bind_admin(address: std::net::SocketAddr, config: &Config) -> Result<std::net::TcpListener, StartError> {
    let failed = |error| StartError::Bind { address, error };
    let bound = bind_shared(address, 1, &config.tcp_keepalive).map_err(failed)?.pop();
    bound.ok_or_else(|| failed(io::ErrorKind::AddrNotAvailable.into()))
}
