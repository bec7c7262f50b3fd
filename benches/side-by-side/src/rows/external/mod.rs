//! Proxies of other makes, as `peers` installs them under `target/peers`.

mod envoy;
mod mitmproxy;
mod squid;

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::ensure;

pub(crate) use envoy::envoy;
pub(crate) use mitmproxy::mitmproxy;
pub(crate) use squid::squid;

/// What such a proxy is told.
pub(crate) struct Parts<'a> {
    /// The stage's: certificates and keys.
    pub(crate) stage: &'a Path,
    /// Its own, empty.
    pub(crate) folder: PathBuf,
    pub(crate) origin: SocketAddr,
    /// Where it is to listen.
    pub(crate) listen: SocketAddr,
}

impl<'a> Parts<'a> {
    pub(crate) fn new(stage: &'a Path, name: &str, origin: SocketAddr) -> anyhow::Result<Self> {
        // Free a moment ago; these proxies do not tell which port 0 became.
        let listen = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let folder = stage.join(format!("{name}-{}", listen.port()));
        fs::create_dir(&folder)?;
        Ok(Self { stage, folder, origin, listen })
    }

    /// Writes a configuration into the own folder, with what is in braces filled in.
    fn configure(&self, name: &str, template: &str) -> anyhow::Result<PathBuf> {
        let path = self.folder.join(name);
        let text = template
            .replace("{stage}", &self.stage.to_string_lossy())
            .replace("{folder}", &self.folder.to_string_lossy())
            .replace("{peers}", &installed("").to_string_lossy())
            .replace("{listen_port}", &self.listen.port().to_string())
            .replace("{origin_port}", &self.origin.port().to_string())
            .replace("{host}", crate::stage::HOST)
            .replace("{injected}", crate::stage::INJECTED);
        fs::write(&path, text)?;
        Ok(path)
    }
}

fn installed(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers").join(path)
}

fn command(path: &str) -> anyhow::Result<Command> {
    let program = installed(path);
    ensure!(program.is_file(), "not installed (benches/side-by-side/peers installs it)");
    Ok(Command::new(program))
}
