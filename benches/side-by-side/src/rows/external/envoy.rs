//! Envoy: a CONNECT that ends in an internal listener, which ends TLS with the one leaf and sets the header.

use std::process::Command;

use super::{Parts, command};

pub(crate) fn envoy(parts: &Parts<'_>) -> anyhow::Result<Command> {
    let mut command = command("envoy/program/envoy")?;
    let configuration = parts.configure("envoy.yaml", include_str!("envoy.yaml"))?;
    command.args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "critical", "-c"]).arg(configuration);
    Ok(command)
}
