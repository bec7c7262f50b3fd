//! Counts instructions in user space. callgrind writes down, thread by thread, what it has counted since the last time
//! whenever a part makes its mark.
//!
//! It runs on a processor of its own making: no SHA extensions and no AVX-512, so that SHA-256 and AES cost more
//! instructions than they really do, on every machine alike. Threads take turns.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::rc::Rc;

use anyhow::{Context as _, ensure};
use tempfile::TempDir;

use super::work::Work;
use crate::measure::Tree;
use crate::rows::{Row, Running, Stage};

/// Caches are filled and buffers grown after so many; for tunnels a tenth.
const WARM_UP: u64 = 100;
/// A tunnel costs more than ten requests.
const REQUESTS_PER_TUNNEL: u64 = 10;
/// The function before which callgrind writes down, as it spells it.
const MARK: &str = "*::rows::part::mark*";
/// In the names of functions of the journal's thread, and of no other; which of them are not inlined hangs on the profile.
const JOURNAL: [&str; 3] = ["::audit::writer::Writer", "::audit::line::", "::audit::chain::Chain>::append"];
/// What was counted lies between the first mark and the second.
const COUNTED: u32 = 2;

/// Instructions of a row for one piece of work: on the threads that serve, and on the journal's.
pub(super) async fn count(row: Row, work: Work, requests: u64, stage: &Stage) -> anyhow::Result<(u64, Option<u64>)> {
    let (warm_up, times) = match work {
        Work::Tunnel => (WARM_UP / REQUESTS_PER_TUNNEL, requests.div_ceil(REQUESTS_PER_TUNNEL)),
        _ => (WARM_UP, requests),
    };
    let output = TempDir::new_in(stage.folder.path())?;
    let running = Rc::new(row.start_under(&callgrind(output.path()), stage).context("is valgrind installed?")?);
    let mut client = work.client(&running).await?;
    client.repeat(warm_up).await?;
    write_down(&running)?;
    client.repeat(times).await?;
    write_down(&running)?;
    let counts = Counts::read(output.path())?;
    let journals = matches!(row, Row::Narrows | Row::NarrowsH2) && work != Work::Tunnel;
    ensure!(counts.journal.is_some() || !journals, "none of the threads looks like the journal's");
    Ok((counts.serving / times, counts.journal.map(|journal| journal / times)))
}

/// Instructions for one piece of the work of a part that has no load.
pub(super) fn count_part(part: &str, times: u64, stage: &Stage) -> anyhow::Result<u64> {
    let output = TempDir::new_in(stage.folder.path())?;
    let mut words = callgrind(output.path()).into_iter();
    let mut command = Command::new(words.next().context("no command")?);
    command.args(words).arg(std::env::current_exe()?).args(["part", part]).arg(times.to_string());
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status().context("valgrind")?;
    ensure!(status.success(), "{part}: {status}");
    Ok(Counts::read(output.path())?.serving / times)
}

/// Has callgrind write down what all threads of a running part have cost, and start from nothing.
fn write_down(running: &Running) -> anyhow::Result<()> {
    let Tree(pid) = running.tree().context("nobody to count")?;
    let said = Command::new("vgdb").arg(format!("--pid={pid}")).arg("dump").stdin(Stdio::null()).output()?;
    ensure!(said.status.success(), "vgdb: {}: {}", said.status, String::from_utf8_lossy(&said.stderr));
    Ok(())
}

fn callgrind(output: &Path) -> Vec<OsString> {
    let mut file = OsString::from("--callgrind-out-file=");
    file.push(output.join("out"));
    let options = ["--tool=callgrind", "--quiet", "--separate-threads=yes"];
    let mut words: Vec<OsString> = ["valgrind"].into_iter().chain(options).map(OsString::from).collect();
    words.extend([file, format!("--dump-before={MARK}").into()]);
    words
}

/// Of all that was done between two marks.
#[derive(Default)]
struct Counts {
    serving: u64,
    journal: Option<u64>,
}

impl Counts {
    /// Reads `out.DUMP-THREAD` of each thread.
    fn read(output: &Path) -> anyhow::Result<Self> {
        let mut counts = Self::default();
        for entry in fs::read_dir(output)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if !name.starts_with(&format!("out.{COUNTED}-")) {
                continue;
            }
            let text = fs::read_to_string(&path)?;
            let total = text.lines().find_map(|line| line.strip_prefix("totals: "));
            let total: u64 = total.context("callgrind says no total")?.trim().parse()?;
            if JOURNAL.iter().any(|name| text.contains(name)) {
                ensure!(counts.journal.is_none(), "two threads look like the journal's");
                counts.journal = Some(total);
            } else {
                counts.serving += total;
            }
        }
        ensure!(counts.serving > 0, "callgrind has not written down what it counted");
        Ok(counts)
    }
}
