//! `git http-backend` behind an origin: the CGI of RFC 3875, as far as git needs it.

use std::convert::Infallible;
use std::path::Path;
use std::process::Stdio;

use bytes::Bytes;
use futures_util::stream;
use http::header::{HeaderName, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{ChildStdin, ChildStdout, Command};

use super::handlers::{AnyBody, ObservedBody, text};

/// A CGI header block is a handful of short lines.
const CGI_HEADER_LINES_MAX: usize = 64;

const READ_BYTES: usize = 16 * 1024;

pub(crate) async fn answer(root: &Path, request: Request<ObservedBody>) -> Response<AnyBody> {
    let (parts, body) = request.into_parts();
    let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let spawned = Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_SYSTEM", "/dev/null")
        // Whoever got here was authenticated by the credential that the test looks for.
        .env("REMOTE_USER", "agent")
        .env("REMOTE_ADDR", "127.0.0.1")
        .env("REQUEST_METHOD", parts.method.as_str())
        .env("PATH_INFO", parts.uri.path())
        .env("QUERY_STRING", parts.uri.query().unwrap_or_default())
        .env("CONTENT_TYPE", header("content-type"))
        .env("CONTENT_LENGTH", header("content-length"))
        .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
        .env("GIT_PROTOCOL", header("git-protocol"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .spawn();
    let Ok(mut child) = spawned else { return text(StatusCode::INTERNAL_SERVER_ERROR, "git did not start") };
    tokio::spawn(feed(body, child.stdin.take().unwrap()));
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let Some(mut response) = read_cgi_head(&mut stdout).await else {
        return text(StatusCode::INTERNAL_SERVER_ERROR, "git http-backend said nothing");
    };
    // The child moves into the body: it is reaped with it, and killed when the peer goes away.
    let frames = stream::unfold((stdout, child), |(mut stdout, child)| async {
        let mut chunk = vec![0; READ_BYTES];
        let size = stdout.read(&mut chunk).await.ok().filter(|size| *size > 0)?;
        chunk.truncate(size);
        Some((Ok::<_, Infallible>(Frame::data(Bytes::from(chunk))), (stdout, child)))
    });
    *response.body_mut() = StreamBody::new(frames).boxed_unsync();
    response
}

async fn feed(mut body: ObservedBody, mut stdin: ChildStdin) {
    while let Some(Ok(frame)) = body.frame().await {
        if let Ok(data) = frame.into_data()
            && stdin.write_all(&data).await.is_err()
        {
            return;
        }
    }
}

async fn read_cgi_head(stdout: &mut BufReader<ChildStdout>) -> Option<Response<AnyBody>> {
    let mut response = text(StatusCode::OK, "");
    response.headers_mut().clear();
    for _ in 0..CGI_HEADER_LINES_MAX {
        let mut line = String::new();
        stdout.read_line(&mut line).await.ok().filter(|size| *size > 0)?;
        let line = line.trim_end();
        if line.is_empty() {
            return Some(response);
        }
        let (name, value) = line.split_once(": ")?;
        if name.eq_ignore_ascii_case("status") {
            *response.status_mut() = value.split(' ').next()?.parse().ok()?;
        } else {
            let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
            response.headers_mut().append(name, HeaderValue::from_str(value).ok()?);
        }
    }
    None
}
