//! mitmproxy: a script sets the header and says where the origin is. Bodies are streamed, as its default is to hold them.

use std::fs;
use std::process::Command;

use super::{Parts, command};
use crate::stage::{ORIGIN, PROXY, ca_file};

const SCRIPT: &str = r#"
def server_connect(data):
    data.server.sni = "{host}"
    # Else an HTTP/2 client's offer is repeated here, HTTP/2 alone, which this origin refuses.
    data.server.alpn_offers = [b"http/1.1"]

def requestheaders(flow):
    # The address here, and not when it connects: only so does it use a connection twice.
    host = flow.request.host_header
    flow.request.host = "127.0.0.1"
    flow.request.port = {origin_port}
    flow.request.host_header = host
    flow.request.headers["authorization"] = "{injected}"
"#;

pub(crate) fn mitmproxy(parts: &Parts<'_>) -> anyhow::Result<Command> {
    let mut command = command("mitmproxy/bin/mitmdump")?;
    let key = fs::read_to_string(parts.stage.join("proxy-ca.key"))?;
    let certificate = fs::read_to_string(ca_file(parts.stage, PROXY))?;
    fs::write(parts.folder.join("mitmproxy-ca.pem"), key + &certificate)?;
    let script = parts.configure("inject.py", SCRIPT)?;
    let trusted = ca_file(parts.stage, ORIGIN);
    command
        .args(["--quiet", "--listen-host", "127.0.0.1", "--listen-port", &parts.listen.port().to_string()])
        .args(["--set", &format!("confdir={}", parts.folder.display())])
        .args(["--set", &format!("ssl_verify_upstream_trusted_ca={}", trusted.display())])
        .args(["--set", "connection_strategy=lazy", "--set", "stream_large_bodies=256k"])
        .arg("--scripts")
        .arg(script);
    Ok(command)
}
