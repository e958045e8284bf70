//! Unix sockets beyond bytes: descriptors and credentials that come along, addresses, listeners.

mod util;

use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::net as std_unix;
use std::sync::Arc;
use std::time::Duration;

use coro::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};
use util::sockets::{Directory, LONG, blocking, everywhere, expires, is_parked, on, parked, was_closed};
use util::{passes, role, until};

fn is_open(fd: RawFd) -> bool {
    // SAFETY: no pointer is passed.
    unsafe { libc::fcntl(fd, libc::F_GETFD) >= 0 }
}

fn closes_on_exec(fd: BorrowedFd<'_>) -> bool {
    // SAFETY: no pointer is passed.
    unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFD) & libc::FD_CLOEXEC != 0 }
}

/// A pipe's two ends.
fn pipe() -> (std::io::PipeReader, std::io::PipeWriter) {
    std::io::pipe().unwrap()
}

#[test]
fn descriptors_arrive_with_their_bytes_and_work() {
    everywhere(|| {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let receiver = coro::spawn(move || {
            let (mut buf, mut fds) = ([0; 64], Vec::new());
            let (n, lost) = theirs.recv_with_fds(&mut buf, &mut fds).unwrap();
            assert_eq!((&buf[..n], lost, fds.len()), (&b"two"[..], false, 2));
            assert!(fds.iter().all(|fd| closes_on_exec(fd.as_fd())));
            let ends = theirs.recv_with_fds(&mut buf, &mut Vec::new()).unwrap();
            assert_eq!(ends, (0, false));
            fds
        });
        until(LONG, "it parks", || is_parked(receiver.id()));
        let (reader, writer) = pipe();
        assert_eq!(ours.send_with_fds(b"two", &[reader.as_fd(), writer.as_fd()]).unwrap(), 3);
        drop((ours, reader, writer));
        let mut fds = receiver.join().unwrap();
        let (mut writer, mut reader) =
            (std::fs::File::from(fds.pop().unwrap()), std::fs::File::from(fds.pop().unwrap()));
        writer.write_all(b"through").unwrap();
        drop(writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
    });
}

/// A read ends where descriptors came along, so it is short while more waits behind it; all of it comes in one edge.
#[test]
fn a_read_that_ends_at_descriptors_is_not_taken_for_the_last() {
    for with_fds in [true, false] {
        on(1, move || {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let (_reader, writer) = pipe();
            let receiver = parked(0, move || {
                let (mut seen, mut buf, mut fds) = (Vec::<String>::new(), [0; 4096], Vec::new());
                while seen.concat().len() < 10 {
                    let n = match with_fds {
                        true => theirs.recv_with_fds(&mut buf, &mut fds).unwrap().0,
                        false => (&theirs).read(&mut buf).unwrap(),
                    };
                    seen.push(String::from_utf8(buf[..n].to_vec()).unwrap());
                }
                (seen, fds.len())
            });
            // The receiver cannot run in between: this task does not give way.
            ours.send_with_fds(b"a", &[writer.as_fd()]).unwrap();
            (&ours).write_all(b"bb").unwrap();
            ours.send_with_fds(b"ccc", &[writer.as_fd(); 3]).unwrap();
            ours.send_with_fds(b"dddd", &[]).unwrap();
            // No end is seen before all was received, which would hide a wrong conclusion.
            let (seen, fds) = receiver.join().unwrap();
            assert_eq!(seen.concat(), "abbcccdddd");
            assert!(seen.len() > 1, "some read ended early: {seen:?}");
            assert_eq!(fds, if with_fds { 4 } else { 0 });
        });
    }
}

#[test]
fn as_many_descriptors_as_the_kernel_takes_and_no_more() {
    everywhere(|| {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (mut r, w) = pipe();
        let (mut buf, mut fds) = ([0; 8], Vec::new());
        assert_eq!(ours.send_with_fds(b"x", &[w.as_fd(); 253]).unwrap(), 1);
        assert_eq!(theirs.recv_with_fds(&mut buf, &mut fds).unwrap(), (1, false));
        assert_eq!(fds.len(), 253);
        for many in [254, 10_000] {
            assert_eq!(ours.send_with_fds(b"x", &vec![w.as_fd(); many]).unwrap_err().kind(), ErrorKind::InvalidInput);
        }
        assert_eq!(ours.send_with_fds(b"", &[w.as_fd()]).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(ours.send_with_fds(b"", &[]).unwrap(), 0);
        fds.clear();
        // A read without a place for them closes them.
        ours.send_with_fds(b"y", &[w.as_fd(); 9]).unwrap();
        assert_eq!((&theirs).read(&mut buf).unwrap(), 1);
        let (a, b) = UnixDatagram::pair().unwrap();
        a.send_with_fds(b"", &[w.as_fd()]).unwrap();
        assert_eq!(b.recv_with_fds(&mut buf, &mut fds).unwrap(), (0, false));
        assert_eq!(fds.len(), 1, "a message may be nothing but descriptors");
        a.send_with_fds(b"z", &[w.as_fd(); 9]).unwrap();
        assert_eq!(b.recv(&mut buf).unwrap(), 1);
        drop((a, b, fds));
        // The reader sees the end only when every copy is closed.
        drop(w);
        assert_eq!(r.read(&mut buf).unwrap(), 0);
    });
}

#[test]
fn descriptors_lost_for_want_of_numbers_are_told() {
    const NAME: &str = "descriptors_lost_for_want_of_numbers_are_told";
    if role().is_none() {
        passes(NAME, "child", LONG);
        return;
    }
    on(1, || {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (_r, w) = pipe();
        ours.send_with_fds(b"abc", &[w.as_fd(); 20]).unwrap();
        (&ours).write_all(b"def").unwrap();
        let used = std::fs::read_dir("/proc/self/fd").unwrap().count() as libc::rlim_t;
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the structure lives across the calls.
        unsafe {
            assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit), 0);
            limit.rlim_cur = used + 5;
            assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &limit), 0);
        }
        let (mut buf, mut fds) = ([0; 8], Vec::new());
        let (n, lost) = theirs.recv_with_fds(&mut buf, &mut fds).unwrap();
        assert_eq!((&buf[..n], lost), (&b"abc"[..], true), "the bytes are there all the same");
        assert!((1..20).contains(&fds.len()), "{} came", fds.len());
        fds.clear();
        assert_eq!(theirs.recv_with_fds(&mut buf, &mut fds).unwrap(), (3, false));
    });
}

#[cfg(target_os = "linux")]
mod linux {
    use super::*;
    use coro::os::linux::net::{SocketAddrExt, TcpStreamExt, UnixSocketExt};
    use coro::os::unix::net::{AncillaryData, SocketAncillary, SocketCred};

    fn mine() -> SocketCred {
        let mut cred = SocketCred::new();
        cred.set_pid(std::process::id() as libc::pid_t);
        // SAFETY: no preconditions.
        unsafe {
            cred.set_uid(libc::getuid());
            cred.set_gid(libc::getgid());
        }
        cred
    }

    #[test]
    fn credentials_come_where_they_are_asked_for() {
        everywhere(|| {
            let directory = Directory::new();
            let to = UnixDatagram::bind(directory.at("to")).unwrap();
            let from = UnixDatagram::bind(directory.at("from")).unwrap();
            assert!(!to.passcred().unwrap());
            to.set_passcred(true).unwrap();
            assert!(to.passcred().unwrap());
            let receiver = coro::spawn(move || {
                let (mut buf, mut room) = ([0; 16], [0; 128]);
                let mut got = SocketAncillary::new(&mut room);
                let (n, cut, who) =
                    to.recv_vectored_with_ancillary_from(&mut [IoSliceMut::new(&mut buf)], &mut got).unwrap();
                assert_eq!((n, cut, got.truncated()), (5, false, false));
                let creds: Vec<_> = got
                    .messages()
                    .flat_map(|m| match m.unwrap() {
                        AncillaryData::ScmCredentials(creds) => creds.collect::<Vec<_>>(),
                        AncillaryData::ScmRights(_) => panic!("nobody sent descriptors"),
                    })
                    .collect();
                (creds, who.unwrap())
            });
            until(LONG, "it parks", || is_parked(receiver.id()));
            let mut room = [0; 128];
            let mut sent = SocketAncillary::new(&mut room);
            assert!(sent.is_empty() && sent.capacity() == 128);
            assert!(sent.add_creds(&[mine()]));
            assert!(!sent.is_empty() && sent.len() <= 128);
            let bufs = [IoSlice::new(b"he"), IoSlice::new(b"llo")];
            assert_eq!(from.send_vectored_with_ancillary_to(&bufs, &mut sent, directory.at("to")).unwrap(), 5);
            let (creds, who) = receiver.join().unwrap();
            assert_eq!(creds, [mine()]);
            assert_eq!(who.as_pathname(), Some(&*directory.at("from")));
        });
    }

    #[test]
    fn control_messages_that_do_not_fit_are_told() {
        everywhere(|| {
            let (a, b) = UnixDatagram::pair().unwrap();
            let (_r, w) = pipe();
            let mut room = [0; 64];
            let mut sent = SocketAncillary::new(&mut room);
            assert!(!sent.add_fds(&[w.as_raw_fd(); 100]) && sent.is_empty());
            assert!(sent.add_fds(&[w.as_raw_fd(); 4]));
            a.send_vectored_with_ancillary(&[IoSlice::new(b"four")], &mut sent).unwrap();
            let (mut buf, mut room) = ([0; 2], [0; 24]);
            let mut got = SocketAncillary::new(&mut room);
            let (n, cut) = b.recv_vectored_with_ancillary(&mut [IoSliceMut::new(&mut buf)], &mut got).unwrap();
            assert_eq!((n, cut, got.truncated()), (2, true, true));
            for message in got.messages() {
                let Ok(AncillaryData::ScmRights(fds)) = message else { panic!("{message:?}") };
                for fd in fds {
                    assert!(is_open(fd));
                    // SAFETY: just received, and nobody else takes it.
                    drop(unsafe { OwnedFd::from_raw_fd(fd) });
                }
            }
            got.clear();
            assert!(got.is_empty() && got.messages().next().is_none() && !got.truncated());

            let (a, b) = UnixStream::pair().unwrap();
            let bytes = [IoSlice::new(b"x")];
            a.send_vectored_with_ancillary(&bytes, &mut got).unwrap();
            assert_eq!(b.recv_vectored_with_ancillary(&mut [IoSliceMut::new(&mut buf)], &mut got).unwrap(), 1);
        });
    }

    #[test]
    fn abstract_names_work_for_every_kind() {
        everywhere(|| {
            let name = |n: &str| {
                // SAFETY: no preconditions.
                let thread = unsafe { libc::gettid() };
                SocketAddr::from_abstract_name(format!("coro test {n} {thread}")).unwrap()
            };
            let at = name("stream");
            let listener = UnixListener::bind_addr(&at).unwrap();
            assert_eq!(listener.local_addr().unwrap().as_abstract_name(), at.as_abstract_name());
            let taken = UnixListener::bind_addr(&at).unwrap_err();
            assert_eq!(taken.raw_os_error(), Some(libc::EADDRINUSE));
            let client = {
                let at = at.clone();
                coro::spawn(move || UnixStream::connect_addr(&at).unwrap())
            };
            let (_server, peer) = listener.accept().unwrap();
            assert!(peer.is_unnamed());
            let client = client.join().unwrap();
            assert_eq!(client.peer_addr().unwrap().as_abstract_name(), at.as_abstract_name());
            assert_eq!(UnixStream::connect_addr(&name("nobody")).unwrap_err().kind(), ErrorKind::ConnectionRefused);

            let (to, from) = (name("to"), name("from"));
            let (a, b) = (UnixDatagram::bind_addr(&to).unwrap(), UnixDatagram::bind_addr(&from).unwrap());
            b.send_to_addr(b"x", &to).unwrap();
            let (n, who) = a.recv_from(&mut [0; 8]).unwrap();
            assert_eq!((n, who.as_abstract_name()), (1, from.as_abstract_name()));
            a.connect_addr(&from).unwrap();
            assert_eq!(a.peer_addr().unwrap().as_abstract_name(), from.as_abstract_name());
        });
    }

    #[test]
    fn options_of_linux_are_set_and_read() {
        let (a, b) = util::sockets::tcp_pair();
        for on in [false, true, false] {
            a.set_quickack(on).unwrap();
            assert_eq!(a.quickack().unwrap(), on);
        }
        b.set_deferaccept(Duration::from_secs(1)).unwrap();
        assert_eq!(b.deferaccept().unwrap(), Duration::from_secs(1));
        b.set_deferaccept(Duration::ZERO).unwrap();
        assert_eq!(b.deferaccept().unwrap(), Duration::ZERO);
        let (s, _other) = UnixStream::pair().unwrap();
        s.set_passcred(true).unwrap();
        assert!(s.passcred().unwrap());
        // Refused without the privilege, by the system.
        let code = |r: io::Result<()>| r.map_err(|e| e.raw_os_error());
        assert_eq!(code(s.set_mark(1)), code(socket2::SockRef::from(&s).set_mark(1)));
    }
}

#[test]
fn the_peer_is_who_it_is() {
    everywhere(|| {
        let (a, b) = UnixStream::pair().unwrap();
        // SAFETY: no preconditions.
        let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
        let cred = a.peer_cred().unwrap();
        assert_eq!((cred.uid, cred.gid, cred), (uid, gid, b.peer_cred().unwrap()));
        if cfg!(any(target_os = "linux", target_vendor = "apple")) {
            assert_eq!(cred.pid, Some(std::process::id() as libc::pid_t));
        }
        a.close().unwrap();
        was_closed(a.peer_cred());
        was_closed(a.peek(&mut [0]));
        was_closed(a.send_with_fds(b"x", &[]));
    });
}

#[test]
fn a_listener_gives_connections_by_every_way() {
    everywhere(|| {
        let directory = Directory::new();
        let listener = UnixListener::bind(directory.at("l")).unwrap();
        let taken = UnixListener::bind(directory.at("l")).unwrap_err();
        assert_eq!((taken.kind(), taken.raw_os_error()), (ErrorKind::AddrInUse, Some(libc::EADDRINUSE)));
        assert_eq!(listener.local_addr().unwrap().as_pathname(), Some(&*directory.at("l")));
        assert!(listener.take_error().unwrap().is_none());
        let connect = || UnixStream::connect(directory.at("l")).unwrap();
        let mut clients: Vec<_> = (0..3).map(|_| connect()).collect();
        assert_eq!(listener.accept_many(2).unwrap().len(), 2);
        assert_eq!(listener.accept_many(2).unwrap().len(), 1);
        clients.push(connect());
        let mut served = listener.incoming().next().unwrap().unwrap();
        clients[3].write_all(b"x").unwrap();
        assert_eq!(served.read(&mut [0; 8]).unwrap(), 1);
        clients.push(connect());
        let stream = IntoIterator::into_iter(&listener).next().unwrap().unwrap();
        assert_eq!(stream.local_addr().unwrap().as_pathname(), Some(&*directory.at("l")));
        // A client with a name of its own.
        let named = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
        named.bind(&socket2::SockAddr::unix(directory.at("client")).unwrap()).unwrap();
        named.connect(&socket2::SockAddr::unix(directory.at("l")).unwrap()).unwrap();
        assert_eq!(listener.accept().unwrap().1.as_pathname(), Some(&*directory.at("client")));
        // A mode, on a clone.
        let clone = listener.try_clone().unwrap();
        clone.set_nonblocking(true).unwrap();
        assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
        listener.set_nonblocking(false).unwrap();
        let text = format!("{clone:?}");
        let theirs = std_unix::UnixListener::from(clone);
        assert_eq!(format!("{theirs:?}"), text);
        let listener = Arc::new(listener);
        let waits = {
            let listener = listener.clone();
            coro::spawn(move || listener.accept().map(drop))
        };
        until(LONG, "it parks", || is_parked(waits.id()));
        listener.close().unwrap();
        was_closed(waits.join().unwrap());
    });
}

#[test]
fn limits_peeks_and_conversions_of_streams() {
    everywhere(|| {
        let limit = Duration::from_millis(30);
        let (a, b) = UnixStream::pair().unwrap();
        assert!(!blocking(a.as_raw_fd()));
        a.set_read_timeout(Some(limit)).unwrap();
        a.set_write_timeout(Some(limit)).unwrap();
        assert_eq!((a.read_timeout().unwrap(), a.write_timeout().unwrap()), (Some(limit), Some(limit)));
        let mut buf = [0; 8];
        expires(limit, || (&a).read(&mut buf));
        expires(limit, || a.peek(&mut buf));
        expires(limit, || a.recv_with_fds(&mut buf, &mut Vec::new()));
        expires(limit, || {
            loop {
                (&a).write_all(&[0; 4096])?;
            }
            #[allow(unreachable_code, reason = "names the type")]
            Ok(())
        });
        expires(limit, || a.send_with_fds(b"x", &[]));
        (&b).write_all(b"abc").unwrap();
        assert_eq!((a.peek(&mut buf).unwrap(), a.peek(&mut buf[..2]).unwrap()), (3, 2));
        assert_eq!(a.recv_exact(3).unwrap(), b"abc");
        let text = format!("{a:?}");
        let a = std_unix::UnixStream::from(a);
        assert!(blocking(a.as_raw_fd()));
        assert_eq!(format!("{a:?}"), text);
        let fd = UnixStream::from(a).into_raw_fd();
        // SAFETY: just given away by its owner.
        let a = unsafe { UnixStream::from_raw_fd(fd) };
        assert_eq!(a.read_timeout().unwrap().map(|l| l.as_millis() >= 30), Some(true), "limits go along");
        a.set_nonblocking(true).unwrap();
        assert_eq!(a.try_clone().unwrap().peek(&mut buf).unwrap_err().kind(), ErrorKind::WouldBlock);
        assert!(a.take_error().unwrap().is_none());
        for path in ["with\0zero", &"long".repeat(50)] {
            assert_eq!(UnixStream::connect(path).unwrap_err().kind(), ErrorKind::InvalidInput);
            assert_eq!(UnixListener::bind(path).unwrap_err().kind(), ErrorKind::InvalidInput);
            assert_eq!(UnixDatagram::bind(path).unwrap_err().kind(), ErrorKind::InvalidInput);
        }
        assert_eq!(UnixStream::connect("/nowhere/at/all").unwrap_err().raw_os_error(), Some(libc::ENOENT));
    });
}
