//! The door between `capctl run` and its isolated command: a listening socket comes out, variables go in.
//!
//! The forwarder stays outside, with the key and the way to the proxy; only its listening socket is from inside. A socket
//! that listens belongs to the network namespace it was made in, whoever accepts on it. The door is a Unix socket in the
//! folder of the run, used once, before the command exists.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, IoSlice, IoSliceMut, Read as _};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::net::UnixStream as Blocking;
use std::path::{Path, PathBuf};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use tokio::io::{AsyncWriteExt as _, Interest};
use tokio::net::{UnixListener, UnixStream};

use aws_lc_rs::digest::{SHA256, digest};

use super::refused::Refused;
use super::sockets::{self, Sockets};
use crate::cli::child::mounts;

const SOCKET: &str = "door";
const HIDDEN: &str = "hidden";
/// Between the private and the rest of the list: no path.
const SEPARATOR: &str = "";

/// What is in a process's ancestry at most: `capctl run`, three stages, and what a debugger may put between them.
const GENERATIONS_MAX: usize = 8;

/// The outer side, waiting.
pub(in crate::cli) struct Door {
    listener: UnixListener,
    folder: PathBuf,
    list: List,
    lost: Vec<String>,
}

/// What the command must not see, written down for the stages; they know it by its digest, because another command of
/// this user may be able to write where it lies.
pub(in crate::cli) struct List {
    pub(super) sha256: String,
}

/// The same as the stages read it.
pub(super) struct Hidden {
    /// Never to be seen, and held where it is.
    pub(super) private: Vec<PathBuf>,
    /// Out of the way: sockets, or what Landlock leaves out beside the private.
    pub(super) beside: Vec<PathBuf>,
}

impl Hidden {
    pub(super) fn all(&self) -> impl Iterator<Item = &PathBuf> {
        self.private.iter().chain(&self.beside)
    }
}

impl List {
    /// Writes `private`, under all its names, and `beside` into `folder`.
    pub(in crate::cli) fn write(folder: &Path, private: &[PathBuf], beside: &[PathBuf]) -> io::Result<Self> {
        let mut list = Vec::new();
        let private = private.iter().filter_map(|path| path.canonicalize().ok());
        let private: Vec<_> = private.flat_map(|path| mounts::everywhere(&path)).collect();
        for path in
            private.iter().map(PathBuf::as_path).chain([SEPARATOR.as_ref()]).chain(beside.iter().map(PathBuf::as_path))
        {
            list.extend_from_slice(path.as_os_str().as_bytes());
            list.push(0);
        }
        fs::write(folder.join(HIDDEN), &list)?;
        Ok(Self { sha256: hex::encode(digest(&SHA256, &list)) })
    }
}

/// The inner side, on the threshold: process `pid`, which becomes the command once it has its variables.
pub(in crate::cli) struct Guest {
    stream: UnixStream,
    pub(in crate::cli) pid: u32,
    pub(in crate::cli) listener: TcpListener,
}

impl Door {
    /// Makes the door in `folder`, and the list of what the command must not see: `hidden` and the machine's sockets.
    pub(in crate::cli) fn open(folder: &Path, hidden: &[PathBuf]) -> io::Result<Self> {
        let folder = folder.canonicalize()?;
        let listener = UnixListener::bind(folder.join(SOCKET))?;
        let Sockets { found, lost } = sockets::look(&folder);
        let list = List::write(&folder, hidden, &found)?;
        Ok(Self { listener, folder, list, lost })
    }

    pub(super) fn list(&self) -> &List {
        &self.list
    }

    /// Sockets that are bound somewhere, by a name that does not say where.
    pub(in crate::cli) fn lost(&self) -> &[String] {
        &self.lost
    }

    pub(in crate::cli) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Waits for the inner side, which descends from process `child`, and takes its listening socket. The door is gone
    /// then. Whoever else knocks, such as another command of this user, gets nothing.
    pub(in crate::cli) async fn meet(self, child: u32) -> io::Result<Guest> {
        let stream = loop {
            let (stream, _) = self.listener.accept().await?;
            let peer = stream.peer_cred()?;
            let is_ours = peer.pid().and_then(|pid| u32::try_from(pid).ok()).is_some_and(|pid| descends(pid, child));
            if is_ours && peer.uid() == nix::unistd::geteuid().as_raw() {
                break stream;
            }
        };
        for name in [SOCKET, HIDDEN] {
            let _ = fs::remove_file(self.folder.join(name));
        }
        // The number as this process knows it, whatever the other side calls itself.
        let pid =
            stream.peer_cred()?.pid().and_then(|pid| u32::try_from(pid).ok()).ok_or(io::ErrorKind::InvalidData)?;
        let socket = loop {
            stream.readable().await?;
            match stream.try_io(Interest::READABLE, || received(&stream)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                received => break received?,
            }
        };
        Ok(Guest { stream, pid, listener: TcpListener::from(socket) })
    }
}

impl Guest {
    /// Gives the variables, which is the word to go.
    pub(in crate::cli) async fn equip(mut self, variables: &[(String, String)]) -> io::Result<()> {
        let pairs = variables.iter().flat_map(|(name, value)| [name, "=", value, "\0"]);
        self.stream.write_all(pairs.collect::<String>().as_bytes()).await?;
        self.stream.shutdown().await
    }
}

/// Whether process `pid` is a child of `from`, or of one of its children.
fn descends(pid: u32, from: u32) -> bool {
    let parent = |pid: &u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
    };
    std::iter::successors(Some(pid), parent).skip(1).take(GENERATIONS_MAX).any(|ancestor| ancestor == from)
}

fn received(stream: &UnixStream) -> io::Result<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    recvmsg(stream, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let rights = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut sockets) => sockets.next(),
        _ => None,
    });
    rights.ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, "the isolated process gave no socket"))
}

/// The inner side: passes `listener` out and waits for the variables.
pub(super) fn knock(folder: &Path, listener: &TcpListener) -> io::Result<Vec<(OsString, OsString)>> {
    let mut stream = Blocking::connect(folder.join(SOCKET))?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let sockets = [listener.as_fd()];
    control.push(SendAncillaryMessage::ScmRights(&sockets));
    sendmsg(&stream, &[IoSlice::new(b"x")], &mut control, SendFlags::empty())?;
    let mut text = Vec::new();
    stream.read_to_end(&mut text)?;
    if text.is_empty() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it is gone"));
    }
    let pair = |line: &[u8]| {
        let at = line.iter().position(|byte| *byte == b'=')?;
        Some((OsString::from_vec(line.get(..at)?.to_vec()), OsString::from_vec(line.get(at + 1..)?.to_vec())))
    };
    Ok(text.split(|byte| *byte == 0).filter_map(pair).collect())
}

/// What the command must not see, as [`List::write`] wrote it.
pub(super) fn hidden(folder: &Path, sha256: &str) -> Result<Hidden, Refused> {
    let list = fs::read(folder.join(HIDDEN)).map_err(|error| Refused::of("the list of what to hide", error))?;
    if hex::encode(digest(&SHA256, &list)) != sha256 {
        return Err(Refused::new("the list of what to hide was changed by somebody else"));
    }
    let mut paths = list.split(|byte| *byte == 0).map(|path| PathBuf::from(OsStr::from_bytes(path)));
    let private = paths.by_ref().take_while(|path| *path != Path::new(SEPARATOR)).collect();
    Ok(Hidden { private, beside: paths.filter(|path| *path != Path::new(SEPARATOR)).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_does_not_descend_from_the_child_is_not_let_in() {
        let folder = tempfile::tempdir().expect("a folder");
        let door = Door::open(folder.path(), &[]).expect("a door");
        let (own, parent) = (std::process::id(), std::os::unix::process::parent_id());
        assert!(descends(own, parent));
        assert!(!descends(own, own) && !descends(parent, own));
        let knocked = Blocking::connect(folder.path().join(SOCKET)).expect("somebody knocks");
        let met = tokio::spawn(door.meet(own));
        // Turned away: the other end is closed, with no variables given.
        let mut said = Vec::new();
        let read = tokio::task::spawn_blocking(move || (&knocked).read_to_end(&mut said).map(|_| said));
        assert!(read.await.expect("it ends").is_ok_and(|said| said.is_empty()));
        assert!(!met.is_finished(), "the door waits for the right one");
        met.abort();
    }

    #[test]
    fn a_list_that_was_changed_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let list = List::write(folder.path(), &[folder.path().to_owned()], &["/beside".into()]).expect("a list");
        let own = folder.path().canonicalize().expect("a path");
        let read = hidden(folder.path(), &list.sha256).expect("a list");
        assert!(read.private.contains(&own) && read.beside == [Path::new("/beside")]);
        fs::write(folder.path().join(HIDDEN), "/nothing\0").expect("written");
        assert!(hidden(folder.path(), &list.sha256).is_err());
    }
}
