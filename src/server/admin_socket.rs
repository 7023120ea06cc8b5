//! The admin socket: a Unix socket that only its owner may connect to.

use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use mio::net::{TcpStream, UnixListener};
use socket2::{Domain, SockAddr, Socket, Type};

/// The mode of the socket's file: its owner may connect.
const MODE: u32 = 0o600;

/// How many connections the kernel holds until they are accepted.
const BACKLOG: i32 = 16;

/// The address of each peer in the log: a process of this machine, without a port.
const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// An `AdminSocket` listens at a path. Its file is removed when it is dropped.
#[derive(Debug)]
pub(super) struct AdminSocket {
    listener: UnixListener,
    path: PathBuf,
    /// The device and the inode of its file.
    file: (u64, u64),
}

impl AdminSocket {
    /// Listens at this path. A socket file on which no process listens any more is replaced.
    pub(super) fn bind(path: &Path) -> io::Result<Self> {
        let too_long = "a socket's path cannot be that long; choose a shorter one";
        let address =
            SockAddr::unix(path).map_err(|_| io::Error::new(ErrorKind::InvalidInput, too_long))?;
        remove_stale(path, &address)?;
        let socket = create(path, &address)?;
        let file = socket
            .listen(BACKLOG)
            .and_then(|()| file_at(path))
            .inspect_err(|_| drop(fs::remove_file(path)))?;
        Ok(Self {
            listener: UnixListener::from(OwnedFd::from(socket)),
            path: path.to_owned(),
            file,
        })
    }

    /// Its socket, to be watched.
    pub(super) const fn source(&mut self) -> &mut UnixListener {
        &mut self.listener
    }

    /// Accepts a connection. It is handled as one over TCP: both are descriptors that are read from and
    /// written to by the same calls, and a type for both would cost each member's socket a branch.
    pub(super) fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, _) = self.listener.accept()?;
        Ok((TcpStream::from(OwnedFd::from(stream)), PEER))
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        // The file at the path may be that of a relay that was started since.
        if file_at(&self.path).is_ok_and(|file| file == self.file) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Creates a socket whose file has its mode. It does not listen yet, so no process can connect.
fn create(path: &Path, address: &SockAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    let mode = Permissions::from_mode(MODE);
    // On Linux the file is created with the mode of the socket. Where a socket has none, this fails.
    let of_socket = File::from(socket.as_fd().try_clone_to_owned()?).set_permissions(mode.clone());
    socket.bind(address)?;
    if of_socket.is_err() {
        fs::set_permissions(path, mode).inspect_err(|_| drop(fs::remove_file(path)))?;
    }
    Ok(socket)
}

/// The device and the inode of the file at this path.
fn file_at(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
}

/// Removes the socket file that a process has left behind, if there is one at this path. Nothing else is
/// removed.
fn remove_stale(path: &Path, address: &SockAddr) -> io::Result<()> {
    let in_use = |text: &str| Err(io::Error::new(ErrorKind::AddrInUse, text));
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(file) if !file.file_type().is_socket() => {
            return in_use("there is a file that is no socket; remove it, or choose another path");
        }
        Ok(_) => {}
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // A listener whose queue is full lets a blocking one wait.
    probe.set_nonblocking(true)?;
    match probe.connect(address) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Err(error),
        Ok(()) | Err(_) => in_use("another process listens there; stop it, or choose another path"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_has_its_mode_before_the_socket_listens() {
        let name = format!("chatloop-socket-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let address = SockAddr::unix(&path).unwrap();
        let socket = create(&path, &address).unwrap();
        let mode = fs::symlink_metadata(&path).unwrap().permissions().mode();
        let probe = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        let refused = probe.connect(&address).unwrap_err();
        fs::remove_file(&path).unwrap();
        assert_eq!(mode & 0o777, MODE);
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        drop(socket);
    }
}
