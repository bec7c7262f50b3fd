//! The operator's listener, asked as a monitoring system asks.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use super::daemon::{Daemon, TestEnv};

/// A proxy with an operator's listener, and where that is.
pub(crate) fn start(env: &TestEnv, admin: &str) -> (Daemon, String) {
    env.write_config();
    let path = env.home().join("narrows.toml");
    let toml = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, toml.replace("admin = \"off\"", &format!("admin = \"{admin}\""))).unwrap();
    let mut daemon = env.start_as_written_with(&[("NARROWS_LOG", "info")]);
    let wanted = if admin.starts_with("unix:") { "admin.sock" } else { "also listening on 127.0.0.1" };
    let line = daemon.wait_for_log(wanted);
    let at = line.split("also listening on ").nth(1).unwrap().trim().to_owned();
    (daemon, at)
}

pub(crate) fn ask(at: &str, head: &str) -> String {
    let exchange = |mut stream: Box<dyn ReadWrite>| {
        write!(stream, "{head}\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    match at.strip_prefix("unix:") {
        Some(path) => exchange(Box::new(UnixStream::connect(path).unwrap())),
        None => exchange(Box::new(TcpStream::connect(at).unwrap())),
    }
}

trait ReadWrite: Read + Write {}
impl<T: Read + Write> ReadWrite for T {}

pub(crate) fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("{answer}"))
}
