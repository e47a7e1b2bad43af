//! The process before this one, and the one behind it, as far as the main thread has a part in it:
//! where they meet, who starts whom, and what belongs where.
//!
//! The next process either knocks at a door, a socket in the file system, or this one starts it itself
//! and waits for it at a door that only the two of them know. Until it has everything, this one goes
//! on with signals; while relays rest, which is bounded, it does nothing else.

use std::cell::RefCell;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use ahash::AHashMap;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{Instant, sleep, sleep_until};

use super::StartError;
use super::control::{Control, Reason, Signals};
use super::posts::Duty;
use crate::connection::{Arrival, Frozen, Live, Open};
use crate::handover::message::VERSION;
use crate::handover::moving::{self, Arrivals, AtRest};
use crate::handover::new::{self, Offer};
use crate::handover::old::{self, Giver, Parcel};
use crate::handover::{Broken, Channel, Hello, Knowledge, Note, Purpose, READY_WITHIN, Socket};
use crate::relay::{Home, NewHome};
use crate::session_store::Learned;
use crate::upstream::Upstream;

/// Where two processes meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// At a socket in the file system.
    Path(PathBuf),
    /// At a name that stands in no directory, written with an `@`.
    Abstract(String),
}

impl FromStr for Address {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text.strip_prefix('@') {
            Some(name) => Self::Abstract(name.to_owned()),
            None => Self::Path(text.into()),
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(f),
            Self::Abstract(name) => write!(f, "@{name}"),
        }
    }
}

impl Address {
    fn resolved(&self) -> io::Result<net::SocketAddr> {
        match self {
            Self::Path(path) => net::SocketAddr::from_pathname(path),
            Self::Abstract(name) => net::SocketAddr::from_abstract_name(name),
        }
    }

    fn connect(&self) -> io::Result<UnixStream> {
        let stream = net::UnixStream::connect_addr(&self.resolved()?)?;
        stream.set_nonblocking(true)?;
        UnixStream::from_std(stream)
    }

    fn listen(&self) -> io::Result<UnixListener> {
        let listener = net::UnixListener::bind_addr(&self.resolved()?)?;
        listener.set_nonblocking(true)?;
        UnixListener::from_std(listener)
    }
}

/// Asks the process at `address` what it has.
pub(super) async fn ask(address: &Address) -> Result<Offer, StartError> {
    let stream = address.connect().map_err(|error| StartError::Ask { address: address.clone(), error })?;
    let offer = new::ask(Channel::new(stream)?, hello()).await?;
    tracing::info!("process {} hands over what it has", offer.pid);
    Ok(offer)
}

fn hello() -> Hello {
    Hello { version: VERSION, pid: std::process::id() }
}

/// Where the next process asks for what this one has: a socket for this user alone.
#[derive(Debug)]
pub(super) struct Door {
    listener: UnixListener,
    path: PathBuf,
    /// Where its file is.
    file: PathBuf,
    /// Which file that is: another process may have put its own in its place.
    inode: u64,
}

impl Door {
    /// A door that is to be at `path`, and beside it until it is [hung](Door::hang): at `path` stands that
    /// of the process which still has everything.
    pub(super) fn make(path: &Path) -> Result<Self, StartError> {
        Self::try_make(path).map_err(|error| StartError::Door { path: path.to_owned(), error })
    }

    fn try_make(path: &Path) -> io::Result<Self> {
        if std::fs::symlink_metadata(path).is_ok_and(|it| !it.file_type().is_socket()) {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "something else than a socket stands there"));
        }
        let mut file = path.as_os_str().to_owned();
        file.push(format!(".{}", std::process::id()));
        let file = PathBuf::from(file);
        let _ = std::fs::remove_file(&file); // Of a process that had our number and was killed.
        let listener = Address::Path(file.clone()).listen()?;
        let door = Self { inode: std::fs::symlink_metadata(&file)?.ino(), listener, path: path.to_owned(), file };
        std::fs::set_permissions(&door.file, PermissionsExt::from_mode(0o600))?;
        Ok(door)
    }

    /// Takes its place, and that of a door which stands there: its process has ended, or is about to.
    pub(super) fn hang(&mut self) {
        match std::fs::rename(&self.file, &self.path) {
            Ok(()) => self.file.clone_from(&self.path),
            Err(error) => {
                tracing::error!("hand-over: nobody can ask at {} for what is here: {error}", self.path.display());
            }
        }
    }
}

impl Drop for Door {
    /// Leaves no file behind.
    fn drop(&mut self) {
        if std::fs::symlink_metadata(&self.file).is_ok_and(|it| it.ino() == self.inode) {
            let _ = std::fs::remove_file(&self.file);
        }
    }
}

/// Waits until somebody knocks at `door`; without one, for ever.
pub(super) async fn knock(door: Option<&Door>) -> UnixStream {
    match door {
        Some(door) => accept(&door.listener).await,
        None => std::future::pending().await,
    }
}

async fn accept(listener: &UnixListener) -> UnixStream {
    const PAUSE: Duration = Duration::from_secs(1);
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) => {
                tracing::warn!("hand-over: cannot accept the next process: {error}");
                sleep(PAUSE).await;
            }
        }
    }
}

/// What this process was started as, to start the next one.
#[derive(Debug)]
pub(super) struct Program {
    path: io::Result<PathBuf>,
    arguments: Vec<OsString>,
}

/// How the next process is told whom to ask.
pub const TAKE_OVER: &str = "--take-over";

impl Program {
    /// That of this process: what stands now where its binary was found when it was started. The link
    /// at `/proc/self/exe` would name the file that an upgrade has removed.
    pub(super) fn of_this_process() -> Self {
        let mut arguments = std::env::args_os();
        let name = arguments.next().map(PathBuf::from);
        let path = match name {
            Some(name) if name.components().count() > 1 => std::path::absolute(name),
            Some(name) => {
                let path = std::env::var_os("PATH").unwrap_or_default();
                let found = std::env::split_paths(&path).map(|it| it.join(&name)).find(|it| it.is_file());
                found.map_or_else(std::env::current_exe, std::path::absolute)
            }
            None => std::env::current_exe(),
        };
        let is_ours = |argument: &OsString| !argument.to_string_lossy().starts_with(TAKE_OVER);
        Self { path, arguments: arguments.filter(is_ours).collect() }
    }

    fn start(&self, address: &Address) -> io::Result<Child> {
        let path = self.path.as_ref().map_err(|error| io::Error::new(error.kind(), error.to_string()))?;
        let child = Command::new(path).args(&self.arguments).arg(format!("{TAKE_OVER}={address}")).spawn();
        child.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
    }
}

impl Control {
    /// Hands everything over to the process at the other end of `stream`; `None` when this one goes on.
    pub(super) async fn admit_next(&mut self, stream: UnixStream, signals: &mut Signals) -> Option<Reason> {
        let admin = self.admin.clone();
        admin.process.hands_over(true);
        let given = async {
            let heir = tokio::select! {
                heir = async { old::prepare(Channel::new(stream)?, hello(), self).await } => heir?,
                _ = signals.terminate.recv() => return Ok(Reason::Signal("SIGTERM")),
                _ = signals.interrupt.recv() => return Ok(Reason::Signal("SIGINT")),
            };
            let began = Instant::now();
            let given = heir.take(self).await?;
            tracing::info!(
                "hand-over: process {} has {} relays, after {} ms; {} that it could have had stay",
                given.pid,
                given.relays,
                began.elapsed().as_millis(),
                given.kept
            );
            Ok::<_, Broken>(Reason::HandedOver(given.pid))
        };
        let given = given.await;
        admin.process.hands_over(matches!(given, Ok(Reason::HandedOver(_))));
        match given {
            Ok(Reason::HandedOver(pid)) => {
                self.manager.tell(&format!("MAINPID={pid}"));
                Some(Reason::HandedOver(pid))
            }
            Ok(reason) => Some(reason),
            Err(error) => {
                tracing::error!("hand-over: failed, going on as before: {error}");
                self.assembly.observer.metrics.hand_overs_failed.inc();
                None
            }
        }
    }

    /// Starts the next process, and hands everything over to it; `None` when this one goes on.
    pub(super) async fn start_next(&mut self, signals: &mut Signals) -> Option<Reason> {
        tracing::info!("SIGUSR2: starting the next process");
        let address = Address::Abstract(format!("steadfast-{}-{:016x}", std::process::id(), fastrand::u64(..)));
        let started = if self.file.is_none() {
            Err(io::Error::other("the configuration came from no file that it could read"))
        } else {
            address.listen().and_then(|door| Ok((door, self.program.start(&address)?)))
        };
        let (door, mut child) = match started {
            Ok(started) => started,
            Err(error) => {
                tracing::error!("SIGUSR2: cannot start the next process, going on as before: {error}");
                self.assembly.observer.metrics.hand_overs_failed.inc();
                return None;
            }
        };
        let until = Instant::now() + READY_WITHIN;
        let reason = loop {
            tokio::select! {
                stream = accept(&door) => match stream.peer_cred() {
                    Ok(peer) if peer.pid().and_then(|pid| u32::try_from(pid).ok()) == Some(child.id()) => {
                        break self.admit_next(stream, signals).await;
                    }
                    _ => tracing::warn!("SIGUSR2: somebody else than the next process knocks; not let in"),
                },
                end = ended(&mut child) => {
                    tracing::error!("SIGUSR2: the next process has ended with {end}; going on as before");
                    self.assembly.observer.metrics.hand_overs_failed.inc();
                    return None;
                }
                () = sleep_until(until) => {
                    tracing::error!("SIGUSR2: the next process does not ask for anything; going on as before");
                    self.assembly.observer.metrics.hand_overs_failed.inc();
                    break None;
                }
                _ = signals.terminate.recv() => break Some(Reason::Signal("SIGTERM")),
                _ = signals.interrupt.recv() => break Some(Reason::Signal("SIGINT")),
            }
        };
        if !matches!(reason, Some(Reason::HandedOver(_))) {
            // It has nothing to do any more. Whether it can be killed or has just ended, it is waited for.
            let _ = child.kill();
            let _ = child.wait();
        }
        reason
    }

    /// Takes over what the process before this one offers, and goes on with it.
    pub(super) async fn take_over(&mut self, offer: Offer, lives: Vec<Arc<Live>>) -> Result<(), StartError> {
        let mut listening: Vec<_> = self.posts.iter().map(|post| post.bind).collect();
        listening.extend(self.config.admin.as_ref().map(|admin| admin.bind));
        let homes = Homes { control: self, lives, departed: RefCell::default() };
        let sessions = self.service.front().sessions.clone();
        let mut arrivals =
            Arrivals::new(&self.workers, sessions, |worker, frozen: &Frozen| homes.arrival(worker, frozen));
        let taken = offer.take_over(listening, &mut arrivals).await?;
        let notes = arrivals.go_on().await;
        tracing::info!("took over {taken} relays");
        let departed: Vec<_> = homes.departed.into_inner().into_values().collect();
        self.heed(notes, &departed).await;
        Ok(())
    }
}

impl Giver for Control {
    type Resting = AtRest;

    fn knowledge(&self) -> Knowledge {
        self.assembly.knowledge()
    }

    fn sockets(&self) -> Vec<(Socket, BorrowedFd<'_>)> {
        let of_posts = self.posts.iter().flat_map(|post| {
            let socket = Socket { address: post.bind, purpose: Purpose::Clients };
            post.sockets().iter().map(move |it| (socket, it.as_fd()))
        });
        let admin = self.config.admin.as_ref().zip(self.admin_socket.as_ref());
        let admin = admin.map(|(admin, it)| (Socket { address: admin.bind, purpose: Purpose::Admin }, it.as_fd()));
        of_posts.chain(admin).collect()
    }

    fn sessions(&self, used_within: Duration) -> impl Iterator<Item = Learned> {
        self.service.front().sessions.used_within(used_within).collect::<Vec<_>>().into_iter()
    }

    fn notes(&self) -> Vec<Note> {
        self.noted()
    }

    async fn rest(&mut self) -> Vec<Parcel<AtRest>> {
        self.posts.iter().for_each(|post| post.order(Duty::Pause));
        if let Some(task) = self.admin_task.take() {
            task.abort();
        }
        moving::rest(&self.workers).await
    }

    async fn go_on(&mut self, resting: Vec<AtRest>) {
        moving::go_on(&self.workers, resting).await;
    }

    fn accept_again(&mut self) {
        self.posts.iter().for_each(|post| post.order(Duty::Accept));
        if let Err(error) = self.accept_admin() {
            tracing::error!("admin: {error}");
        }
    }

    fn accept_no_more(&mut self, elsewhere: &[SocketAddr]) {
        for post in self.posts.drain(..) {
            post.order(if elsewhere.contains(&post.bind) { Duty::Yield } else { Duty::Leave });
        }
        self.admin_socket = None;
    }
}

/// Where connections of another process belong to in this one.
struct Homes<'a> {
    control: &'a Control,
    /// Of each worker.
    lives: Vec<Arc<Live>>,
    /// For servers that the configuration does not have: as many as there are relays, at most.
    departed: RefCell<AHashMap<Home, Arc<Upstream>>>,
}

impl Homes<'_> {
    fn arrival(&self, worker: usize, frozen: &Frozen) -> Arrival {
        let Control { assembly, service, .. } = self.control;
        let client = frozen.relay.has_seat.then(|| frozen.relay.client_address());
        let (ticket, seat) = assembly.let_in(client);
        let open = Open::new(service.observer.clone(), self.lives[worker].clone(), ticket);
        let (upstream, server) = self.find(&frozen.relay.home);
        let home = NewHome { observer: service.observer.clone(), upstream, server, seat };
        Arrival { service: service.clone(), open, home }
    }

    fn find(&self, home: &Home) -> (Arc<Upstream>, u16) {
        let front = self.control.service.front();
        let here = front.upstreams.iter().find(|it| it.name == home.upstream).and_then(|upstream| {
            let mut servers = upstream.servers.iter();
            let at = servers.position(|server| server.name == home.server && server.address == home.address)?;
            Some((upstream.clone(), u16::try_from(at).ok()?))
        });
        here.unwrap_or_else(|| {
            let mut departed = self.departed.borrow_mut();
            let upstream = departed
                .entry(home.clone())
                .or_insert_with(|| self.control.assembly.departed(&self.control.config, home));
            (upstream.clone(), 0)
        })
    }
}

/// Waits until `child` has ended, and says how.
async fn ended(child: &mut Child) -> String {
    const LOOK_EVERY: Duration = Duration::from_millis(50);
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return status.to_string(),
            Ok(None) => sleep(LOOK_EVERY).await,
            Err(error) => return error.to_string(),
        }
    }
}
