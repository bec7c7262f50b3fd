//! What is open already would be a way around everything else: a socket, a hidden file, a folder of the file system as it
//! is outside, a device that is a network.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use nix::libc::{major, minor};

use super::door::Hidden;
use super::refused::Refused;

/// The first three are the command's own business: they may be sockets, as programs that start programs make them.
const STDERR: u32 = 2;
/// What has no file and leads nowhere.
const HARMLESS: [&str; 6] = [
    "pipe:",
    "anon_inode:[eventfd]",
    "anon_inode:[eventpoll]",
    "anon_inode:[signalfd]",
    "anon_inode:[timerfd]",
    "anon_inode:inotify",
];
/// null, zero, full, random, urandom; `/dev/tty` and `/dev/ptmx` (devices.txt of the kernel).
const MEMORY_MAJOR: u32 = 1;
const MEMORY_MINORS: [u32; 5] = [3, 5, 7, 8, 9];
const TERMINAL_MAJOR: u32 = 5;
const TERMINAL_MINORS: [u32; 2] = [0, 2];
/// Terminals that programs make.
const PTY_MAJORS: std::ops::RangeInclusive<u32> = 136..=143;

/// Refuses what is open and leads outside.
pub(super) fn check(hidden: &Hidden) -> Result<(), Refused> {
    let open = fs::read_dir("/proc/self/fd").map_err(|error| Refused::of("/proc/self/fd", error))?;
    // Listing them is itself a folder that is open, which is nobody else's.
    let open: Vec<_> = open.flatten().map(|entry| entry.path()).collect();
    for path in open {
        let Some(number) = path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok()) else { continue };
        let Ok(target) = fs::read_link(&path) else { continue };
        let inside = hidden.all().any(|hidden| target.starts_with(hidden));
        let is_folder = fs::metadata(&path).is_ok_and(|found| found.is_dir());
        if inside || is_folder || number > STDERR && !is_harmless(&path, &target) {
            let what = target.display();
            return Err(Refused::new(format!("descriptor {number} is open and leads outside ({what})"))
                .hint(format!("close it for the command: capctl run --isolate … {number}>&-")));
        }
    }
    Ok(())
}

/// Whether a descriptor is a file, a pipe, a terminal or the like. What is not known to be harmless is not.
fn is_harmless(path: &Path, target: &Path) -> bool {
    if target.to_str().is_some_and(|target| HARMLESS.iter().any(|harmless| target.starts_with(harmless))) {
        return true;
    }
    let Ok(found) = fs::metadata(path) else { return false };
    // An absolute path: files of the kernel's own (`net:[…]`, `mnt:[…]`) are regular too.
    let kind = found.file_type();
    if !target.is_absolute() || !kind.is_char_device() {
        return target.is_absolute() && (kind.is_file() || kind.is_fifo());
    }
    let (major, minor) = (major(found.rdev()), minor(found.rdev()));
    major == MEMORY_MAJOR && MEMORY_MINORS.contains(&minor)
        || major == TERMINAL_MAJOR && TERMINAL_MINORS.contains(&minor)
        || PTY_MAJORS.contains(&major)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsRawFd as _;
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn files_and_pipes_are_harmless_and_namespaces_are_not() {
        let harmless = |fd: i32| {
            let path = PathBuf::from(format!("/proc/self/fd/{fd}"));
            is_harmless(&path, &fs::read_link(&path).expect("it is open"))
        };
        let (reader, _writer) = std::io::pipe().expect("a pipe");
        assert!(harmless(reader.as_raw_fd()));
        for (name, expected) in [
            ("/proc/self/status", true),
            ("/dev/null", true),
            ("/dev/zero", true),
            ("/proc/self/ns/net", false),
            ("/dev", false),
        ] {
            assert_eq!(harmless(File::open(name).expect("it is there").as_raw_fd()), expected, "{name}");
        }
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
        assert!(!harmless(socket.as_raw_fd()));
    }
}
