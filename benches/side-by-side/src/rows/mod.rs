//! The rows of the table: what is measured, each in a process of its own.

mod bare;
mod connect;
mod connector;
mod external;
#[cfg(feature = "hudsucker")]
mod hudsucker;
mod narrows;
pub(crate) mod part;
pub(crate) mod process;
mod tunnel;

use std::cell::Cell;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context as _;
use clap::ValueEnum;
use tempfile::TempDir;

use crate::home::{self, Agent, Shape};
use crate::measure::{Cores, Tree};
use crate::stage::{self, ORIGIN, Origins, PROXY};
use external::Parts;
use process::Process;

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Row {
    /// No proxy: client and origin on one core
    Direct,
    /// A CONNECT tunnel that ends no TLS
    Tunnel,
    /// A pass-through that ends TLS and injects, and does no more; the origin speaks HTTP/1.1
    Bare,
    /// The same, with HTTP/2 to the origin
    BareH2,
    /// Narrows, with everything on; the origin speaks HTTP/1.1
    Narrows,
    /// The same, with an origin that offers HTTP/2
    NarrowsH2,
    /// hudsucker
    #[cfg(feature = "hudsucker")]
    Hudsucker,
    /// Envoy
    Envoy,
    /// squid, ssl-bump
    Squid,
    /// mitmproxy
    Mitmproxy,
}

/// Where everything of this run is.
pub(crate) struct Stage {
    pub(crate) folder: TempDir,
    pub(crate) cores: Cores,
    pub(crate) origins: Origins,
    /// Each start of Narrows gets a home of its own.
    homes: Cell<usize>,
    /// Alive as long as the stage is.
    _origin: [Process; 3],
}

impl Stage {
    pub(crate) fn set(cores: Cores) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        // A proxy that becomes another user has to find its own folder in here; private files stay private.
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o711))?;
        stage::prepare(folder.path())?;
        let start = |h2: bool, patient: bool| {
            let mut arguments = vec!["part".into(), "origin".into(), folder.path().into()];
            arguments.extend(h2.then(|| "--h2".into()));
            arguments.extend(patient.then(|| "--patient".into()));
            Process::part(cores.load, cores, &arguments)
        };
        let (h1, h2, bulk) = (start(false, false)?, start(true, false)?, start(false, true)?);
        let origins = Origins { h1: h1.address, h2: h2.address, bulk: bulk.address };
        Ok(Self { folder, cores, origins, homes: Cell::new(0), _origin: [h1, h2, bulk] })
    }

    fn home(&self) -> PathBuf {
        self.homes.set(self.homes.get() + 1);
        self.folder.path().join(format!("home-{}", self.homes.get()))
    }
}

/// A row that runs, and how a client gets through it.
pub(crate) struct Running {
    pub(crate) row: Row,
    process: Option<Process>,
    proxy: Option<SocketAddr>,
    /// Whom the client has to trust.
    pub(crate) ca: PathBuf,
    /// Who proves itself at each CONNECT, where that is asked for.
    pub(crate) agent: Option<Agent>,
    /// Where the client connects when there is no proxy.
    pub(crate) origin: SocketAddr,
    /// The port that the client asks for; the origin's own for a proxy that cannot be told where the origin is.
    pub(crate) port: u16,
}

impl Running {
    pub(crate) fn proxy(&self) -> Option<SocketAddr> {
        self.proxy
    }

    /// The same for another thread, without an agent of its own. It has to be let go of before the first is.
    pub(crate) fn elsewhere(&self) -> Self {
        let Self { row, proxy, origin, port, .. } = *self;
        Self { row, process: None, proxy, ca: self.ca.clone(), agent: None, origin, port }
    }

    fn with(self, process: Process) -> Self {
        Self { proxy: Some(process.address), process: Some(process), ..self }
    }

    /// Begins or ends a count.
    pub(crate) fn mark(&self) -> anyhow::Result<()> {
        self.process.as_ref().context("nobody to count")?.mark()
    }

    /// What is measured; nothing, when the client talks to the origin itself.
    pub(crate) fn tree(&self) -> Option<Tree> {
        self.process.as_ref().map(|process| process.tree)
    }
}

impl Row {
    /// As the table and the command line have it.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// The pass-through that this row is compared with: the one that speaks to the origin as it does.
    pub(crate) const fn base(self) -> Self {
        match self {
            Self::BareH2 | Self::NarrowsH2 => Self::BareH2,
            _ => Self::Bare,
        }
    }

    /// Whether the credential is put in on the way, or the client has to send it.
    pub(crate) const fn injects(self) -> bool {
        !matches!(self, Self::Direct | Self::Tunnel)
    }

    /// Starts a fresh instance.
    pub(crate) fn start(self, stage: &Stage) -> anyhow::Result<Running> {
        self.start_as(stage, &[], &Shape::default())
    }

    /// The same, where Narrows has this shape; the others have none.
    pub(crate) fn start_shaped(self, stage: &Stage, shape: &Shape) -> anyhow::Result<Running> {
        self.start_as(stage, &[], shape)
    }

    /// The same under a program that counts what it does; for rows that this program plays itself.
    pub(crate) fn start_under(self, tool: &[OsString], stage: &Stage) -> anyhow::Result<Running> {
        self.start_as(stage, tool, &Shape::default())
    }

    fn start_as(self, stage: &Stage, tool: &[OsString], shape: &Shape) -> anyhow::Result<Running> {
        let folder = stage.folder.path();
        let h2 = matches!(self, Self::BareH2 | Self::NarrowsH2);
        // Whoever only carries bytes lets the client choose.
        let origin = stage.origins.offering(h2 || !self.injects());
        let ca = stage::ca_file(folder, if self.injects() { PROXY } else { ORIGIN });
        let running = Running { row: self, process: None, proxy: None, ca, agent: None, origin, port: 443 };
        let to = || origin.to_string().into();
        let arguments = match self {
            Self::Direct => return Ok(running),
            Self::Tunnel => vec!["tunnel".into(), to()],
            Self::Bare => vec!["bare".into(), folder.into(), to(), stage.origins.bulk.to_string().into()],
            Self::BareH2 => {
                vec!["bare".into(), folder.into(), to(), stage.origins.bulk.to_string().into(), "--h2".into()]
            }
            #[cfg(feature = "hudsucker")]
            Self::Hudsucker => vec!["hudsucker".into(), folder.into(), to()],
            Self::Narrows | Self::NarrowsH2 => return start_narrows(stage, tool, shape, running),
            Self::Envoy => return start_external(stage, running, external::envoy),
            Self::Squid => {
                let port = origin.port();
                return start_external(stage, Running { port, ..running }, external::squid);
            }
            Self::Mitmproxy => return start_external(stage, running, external::mitmproxy),
        };
        Ok(running.with(part(tool, stage, arguments)?))
    }
}

fn start_narrows(stage: &Stage, tool: &[OsString], shape: &Shape, mut running: Running) -> anyhow::Result<Running> {
    let home = stage.home();
    running.agent = Some(home::write(stage.folder.path(), &home, [running.origin, stage.origins.bulk], shape)?);
    running.ca = home.join("ca.pem");
    Ok(running.with(part(tool, stage, vec!["narrows".into(), home.into()])?))
}

fn start_external(
    stage: &Stage,
    running: Running,
    command: fn(&Parts<'_>) -> anyhow::Result<Command>,
) -> anyhow::Result<Running> {
    let parts = Parts::new(stage.folder.path(), &running.row.name(), running.origin)?;
    let command = command(&parts)?;
    Ok(running.with(Process::other(stage.cores.proxy, stage.cores, command, parts.listen)?))
}

fn part(tool: &[OsString], stage: &Stage, mut arguments: Vec<OsString>) -> anyhow::Result<Process> {
    arguments.insert(0, "part".into());
    Process::part_under(tool, stage.cores.proxy, stage.cores, &arguments)
}
