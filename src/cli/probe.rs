//! `capctl admin alive`, `ready` and `metrics`: asks the operator's listener as a probe does, also where it is a socket
//! or loopback, which nothing outside the container reaches.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::Duration;

use crate::config::{Config, Listen};
use crate::store::{Home, operator};

use super::failure::Failure;
use super::output::print;

/// Less than what a probe is given.
const WITHIN: Duration = Duration::from_secs(3);
/// The answer to a probe is a line or a few, in bytes.
pub(super) const FEW_BYTES: u64 = 64 * 1024;
/// All counts of a proxy with every series that it may have, in bytes.
pub(super) const METRICS_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Asks for `path`, and prints the answer. It fails unless that is 200.
pub(super) fn ask(home: &Home, path: &str, most: u64) -> Result<ExitCode, Failure> {
    let admin = operator(home)?;
    let answer =
        exchange(&admin, path, most).map_err(|error| Failure::new(format_args!("{admin} does not answer: {error}")))?;
    let status = answer.split(' ').nth(1).unwrap_or_default();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    if status != "200" {
        return Err(Failure::new(format_args!("{path} answers {status}: {}", body.trim_end().escape_debug())));
    }
    if !is_whole(head, body) {
        return Err(Failure::new(format_args!("{path}: the answer is cut off")));
    }
    print(body.trim_end())?;
    Ok(ExitCode::SUCCESS)
}

/// Where the running proxy has its operator's listener; else where the configuration would have it. The first does not
/// depend on the second: a bad configuration is no reason to take the proxy for dead.
fn operator(home: &Home) -> Result<Listen, Failure> {
    home.check()?;
    if let Some(at) = operator::noted(home)? {
        return at.parse().map_err(|error| Failure::new(format_args!("{}: {error}", home.admin_at().display())));
    }
    let config = Config::load(home).map_err(|problems| {
        let first = problems.first().map(ToString::to_string).unwrap_or_default();
        Failure::new(first).hint("narrows --check lists every problem".to_owned())
    })?;
    config.admin.ok_or_else(|| {
        Failure::new("`admin` is \"off\"").hint("admin = \"unix:admin.sock\" in narrows.toml".to_owned())
    })
}

fn is_whole(head: &str, body: &str) -> bool {
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    length.is_some_and(|length| length == body.len())
}

/// Asks what listens there for `path`. An answer beyond so many bytes is cut off.
pub(super) fn exchange(at: &Listen, path: &str, most: u64) -> io::Result<String> {
    match at {
        Listen::Tcp(address) => {
            let stream = TcpStream::connect_timeout(address, WITHIN)?;
            stream.set_read_timeout(Some(WITHIN))?;
            over(stream, path, most)
        }
        Listen::Unix(socket) => {
            let stream = UnixStream::connect(socket)?;
            stream.set_read_timeout(Some(WITHIN))?;
            over(stream, path, most)
        }
    }
}

fn over(mut stream: impl Read + Write, path: &str, most: u64) -> io::Result<String> {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(most).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
