//! `capctl admin alive`, `capctl admin ready`: asks the operator's listener as a probe does, also where it is a socket
//! or loopback, which nothing outside the container reaches.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::Duration;

use crate::config::{Config, Listen};
use crate::store::Home;

use super::failure::Failure;
use super::output::print;

/// Less than what a probe is given.
const WITHIN: Duration = Duration::from_secs(3);
/// An answer is a line or a few.
const ANSWER_BYTES_MAX: u64 = 16 * 1024;

/// Asks for `path`, and prints the answer. It fails unless that is 200.
pub(super) fn ask(home: &Home, path: &str) -> Result<ExitCode, Failure> {
    let config = Config::load(home).map_err(|problems| {
        let first = problems.first().map(ToString::to_string).unwrap_or_default();
        Failure::new(first).hint("narrows --check lists every problem".to_owned())
    })?;
    let Some(admin) = &config.admin else {
        return Err(Failure::new("`admin` is \"off\"").hint("admin = \"unix:admin.sock\" in narrows.toml".to_owned()));
    };
    let answer = answer(admin, path).map_err(|error| Failure::new(format_args!("{admin} does not answer: {error}")))?;
    let status = answer.split(' ').nth(1).unwrap_or_default();
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body.trim_end());
    if status != "200" {
        return Err(Failure::new(format_args!("{path} answers {status}: {}", body.escape_debug())));
    }
    print(body)?;
    Ok(ExitCode::SUCCESS)
}

fn answer(admin: &Listen, path: &str) -> io::Result<String> {
    match admin {
        Listen::Tcp(address) => {
            let stream = TcpStream::connect_timeout(address, WITHIN)?;
            stream.set_read_timeout(Some(WITHIN))?;
            exchange(stream, path)
        }
        Listen::Unix(socket) => {
            let stream = UnixStream::connect(socket)?;
            stream.set_read_timeout(Some(WITHIN))?;
            exchange(stream, path)
        }
    }
}

fn exchange(mut stream: impl Read + Write, path: &str) -> io::Result<String> {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
