//! What `/metrics` says; `docs/metrics.md` has the table.
//!
//! Names of services, operations, secrets and listeners come from the configuration. Deliberately absent: any name of a
//! person, a host, a path or a capability.

use std::fmt;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use super::Admin;
use super::process::Usage;
use super::readiness;
use crate::clock::UnixSeconds;
use crate::proxy::{BOUNDS, Count, Distribution, Series};

/// So many secrets have an age of their own; the oldest of the rest is that of `other`.
const SECRETS_MAX: usize = 256;

/// One reading.
#[derive(Debug)]
pub(super) struct Scrape(pub(super) Admin);

/// Where families are written, one after another.
struct Sheet<'e>(DescriptorEncoder<'e>);

type Labels<'l, const N: usize> = [(&'l str, &'l str); N];

impl Sheet<'_> {
    fn counters<'l, const N: usize, V: EncodeCounterValue>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Labels<'l, N>, V)>,
    ) -> fmt::Result {
        let (name, unit) = without_unit(name);
        let mut family = self.0.encode_descriptor(name, help, unit.as_ref(), MetricType::Counter)?;
        for (labels, value) in samples {
            each(&mut family, &labels, |sample| sample.encode_counter::<NoLabelSet, _, u64>(&value, None))?;
        }
        Ok(())
    }

    fn gauges<'l, const N: usize, V: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Labels<'l, N>, V)>,
    ) -> fmt::Result {
        let (name, unit) = without_unit(name);
        let mut family = self.0.encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?;
        for (labels, value) in samples {
            each(&mut family, &labels, |sample| sample.encode_gauge(&value))?;
        }
        Ok(())
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.counters(name, help, [([], value)])
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl TryInto<i64>) -> fmt::Result {
        self.gauges(name, help, [([], value.try_into().unwrap_or(i64::MAX))])
    }

    fn histograms<'l>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Labels<'l, 2>, Distribution)>,
    ) -> fmt::Result {
        let (name, unit) = without_unit(name);
        let mut family = self.0.encode_descriptor(name, help, unit.as_ref(), MetricType::Histogram)?;
        for (labels, seen) in samples {
            let bounds = BOUNDS.iter().map(|(_, seconds)| *seconds).chain([f64::INFINITY]);
            let buckets: Vec<(f64, u64)> = bounds.zip(seen.buckets).collect();
            each(&mut family, &labels, |sample| {
                sample.encode_histogram::<NoLabelSet>(seen.sum.as_secs_f64(), seen.count(), &buckets, None)
            })?;
        }
        Ok(())
    }
}

/// The library puts a unit after a name by itself.
fn without_unit(name: &str) -> (&str, Option<Unit>) {
    let seconds = name.strip_suffix("_seconds").map(|name| (name, Some(Unit::Seconds)));
    let bytes = || name.strip_suffix("_bytes").map(|name| (name, Some(Unit::Bytes)));
    seconds.or_else(bytes).unwrap_or((name, None))
}

/// Writes one sample with its labels, or without any.
fn each<const N: usize>(
    family: &mut MetricEncoder<'_>,
    labels: &Labels<'_, N>,
    write: impl FnOnce(&mut MetricEncoder<'_>) -> fmt::Result,
) -> fmt::Result {
    if N == 0 { write(family) } else { write(&mut family.encode_family(labels)?) }
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut sheet = Sheet(encoder);
        self.requests(&mut sheet)?;
        self.clients(&mut sheet)?;
        self.upstreams(&mut sheet)?;
        self.caches(&mut sheet)?;
        self.journal(&mut sheet)?;
        self.traces(&mut sheet)?;
        self.standing(&mut sheet)?;
        self.process(&mut sheet)
    }
}

impl Scrape {
    fn requests(&self, sheet: &mut Sheet<'_>) -> fmt::Result {
        let metrics = &self.0.proxy.metrics;
        let mut all = metrics.series();
        all.retain(|series| series.endings().any(|(.., count)| count > 0));
        let endings = all.iter().flat_map(|series| {
            let names = [("service", series.service()), ("operation", series.operation())];
            series.endings().filter(|(outcome, _, count)| *count > 0 || *outcome == "allowed").map(
                move |(outcome, code, count)| {
                    let code = code.map_or("none", |code| code.as_str());
                    ([names[0], names[1], ("outcome", outcome), ("code", code)], count)
                },
            )
        });
        sheet.counters("narrows_requests", "Requests and plain tunnels that have ended.", endings)?;
        let distributions = |of: fn(&Series) -> Distribution| {
            let both = all
                .iter()
                .map(move |series| ([("service", series.service()), ("operation", series.operation())], of(series)));
            both.filter(|(_, seen)| seen.count() > 0)
        };
        let help = "How long Narrows itself took for a request.";
        sheet.histograms("narrows_request_own_seconds", help, distributions(Series::own))?;
        let help = "How long a request waited for its upstream, and for the client while it was answered.";
        sheet.histograms("narrows_request_upstream_seconds", help, distributions(Series::upstream))?;
        let refusals = metrics.refusals().map(|(code, count)| ([("code", code.as_str())], count));
        sheet.counters("narrows_refusals", "Refusals, those of credentials and of CONNECTs among them.", refusals)
    }

    fn clients(&self, sheet: &mut Sheet<'_>) -> fmt::Result {
        let (metrics, counted) = (&self.0.proxy.metrics, |what| self.0.proxy.metrics.counted(what));
        sheet.counter(
            "narrows_connections",
            "Connections of clients that were accepted.",
            counted(Count::Connections),
        )?;
        sheet.gauge("narrows_connections_open", "Connections of clients that are open.", self.0.drain.running())?;
        let most = self.0.proxy.limits.connections_max;
        sheet.gauge("narrows_connections_max", "So many connections may be open.", most)?;
        // What has closed is read first, so that no tunnel is missing among the opened.
        let closed = metrics.counted(Count::TunnelsClosed);
        let opened = metrics.counted(Count::TunnelsOpened);
        sheet.counter(
            "narrows_tunnels",
            "CONNECTs that were authenticated, and redirected TLS connections.",
            opened,
        )?;
        sheet.gauge("narrows_tunnels_open", "Tunnels that are open.", opened.saturating_sub(closed))?;
        let handshakes = [
            ([("result", "full")], counted(Count::HandshakesFull)),
            ([("result", "resumed")], counted(Count::HandshakesResumed)),
            ([("result", "failed")], counted(Count::HandshakesFailed)),
        ];
        sheet.counters("narrows_handshakes", "TLS handshakes with clients inside tunnels.", handshakes)
    }

    fn upstreams(&self, sheet: &mut Sheet<'_>) -> fmt::Result {
        let counted = |what| self.0.proxy.metrics.counted(what);
        let dials =
            [([("result", "ok")], counted(Count::DialsMade)), ([("result", "failed")], counted(Count::DialsFailed))];
        sheet.counters("narrows_upstream_dials", "Connections to upstreams that were tried.", dials)?;
        let reused = counted(Count::ConnectionsReused);
        sheet.counter("narrows_upstream_reuses", "Requests that took a connection that was there.", reused)?;
        let idle = self.0.proxy.kept().idle;
        sheet.gauge("narrows_upstream_connections_idle", "HTTP/1.1 connections to upstreams that are idle.", idle)
    }

    fn caches(&self, sheet: &mut Sheet<'_>) -> fmt::Result {
        let (proxy, kept, leaves) = (&self.0.proxy, self.0.proxy.kept(), self.0.proxy.leaves.counts());
        let lookups = |hits, misses| [([("result", "hit")], hits), ([("result", "miss")], misses)];
        let help = "Tunnels that asked for a leaf certificate.";
        sheet.counters("narrows_leaf_cache_lookups", help, lookups(leaves.hits, leaves.misses))?;
        sheet.gauge("narrows_leaf_cache_entries", "Leaf certificates in memory.", leaves.entries)?;
        let known = proxy.metrics.counted(Count::CapabilitiesKnown);
        let new = proxy.metrics.counted(Count::CapabilitiesNew);
        let help = "Credentials whose capability was looked for among those verified.";
        sheet.counters("narrows_capability_cache_lookups", help, lookups(known, new))?;
        sheet.gauge("narrows_capability_cache_entries", "Verified capabilities in memory.", kept.capabilities)?;
        sheet.gauge("narrows_replay_cache_entries", "Used proofs in memory.", kept.proofs)
    }

    fn journal(&self, sheet: &mut Sheet<'_>) -> fmt::Result {
        let (journal, health) = (&self.0.proxy.journal, self.0.proxy.journal.health());
        sheet.counter("narrows_journal_lines", "Lines written to the journal.", health.lines)?;
        sheet.gauge("narrows_journal_in_flight", "Requests begun and without a line.", health.in_flight)?;
        let most = journal.in_flight_max();
        sheet.gauge("narrows_journal_in_flight_max", "So many requests can be begun and without a line.", most)?;
        let refusing = i64::from(health.refusing.is_some());
        sheet.gauge(
            "narrows_journal_refusing",
            "1 while requests are refused for lines cannot be written.",
            refusing,
        )?;
        let help = "Lines left out on stdout, for nobody read them there.";
        sheet.counter("narrows_journal_stdout_left_out", help, health.stdout_left_out)
    }

    fn traces(&self, sheet: &mut Sheet<'_>) -> fmt::Result {
        let counts = self.0.proxy.traces.counts();
        let spans = [("sent", counts.sent), ("failed", counts.failed), ("dropped", counts.dropped)];
        let spans = spans.map(|(result, count)| ([("result", result)], count));
        sheet.counters("narrows_trace_spans", "Spans of requests, by whether the collector has them.", spans)
    }

    fn standing(&self, sheet: &mut Sheet<'_>) -> fmt::Result {
        let (standing, reloads) = (&self.0.standing, self.0.standing.reloads());
        let checks = readiness::checks(&self.0);
        let checks = checks.iter().map(|check| ([("check", check.name)], i64::from(check.trouble.is_none())));
        sheet.gauges("narrows_ready", "1 for each check of /readyz that is in order.", checks)?;
        let counts = [([("result", "ok")], reloads.taken), ([("result", "refused")], reloads.refused)];
        sheet.counters("narrows_reloads", "How often the files were read again.", counts)?;
        let last = i64::from(reloads.last_was_taken);
        sheet.gauge("narrows_reload_last_successful", "1 when the last change was taken up.", last)?;
        let help = "When the files were taken up last; the start counts.";
        sheet.gauge("narrows_reload_last_success_timestamp_seconds", help, reloads.taken_at.get())?;
        self.secrets(sheet)?;
        let ends = standing.authority_end().map(|end| ([], timestamp(end)));
        let help = "When the certificate of the local CA expires.";
        sheet.gauges("narrows_ca_certificate_expiry_timestamp_seconds", help, ends)?;
        let held = self.0.proxy.listeners(UnixSeconds::now());
        let expiries = held.iter().filter_map(|it| Some(([("listener", &*it.name)], timestamp(it.expires_at?))));
        let help = "When the capability of a listener expires.";
        sheet.gauges("narrows_listener_capability_expiry_timestamp_seconds", help, expiries)
    }

    fn secrets(&self, sheet: &mut Sheet<'_>) -> fmt::Result {
        let snapshot = self.0.proxy.live.snapshot();
        let missing = snapshot.missing_secrets().len();
        sheet.gauge("narrows_secrets_missing", "Secrets that services name and the store has not.", missing)?;
        let (now, times) = (UnixSeconds::now(), self.0.standing.secret_times());
        let age = |at: &UnixSeconds| timestamp(now - at.get());
        let own = times.iter().take(SECRETS_MAX).map(|(name, at)| ([("secret", name.as_str())], age(at)));
        let rest = times.values().skip(SECRETS_MAX).min().map(|at| ([("secret", "other")], age(at)));
        sheet.gauges("narrows_secret_age_seconds", "How long ago a secret in use was set.", own.chain(rest))
    }

    fn process(&self, sheet: &mut Sheet<'_>) -> fmt::Result {
        let mut build = sheet.0.encode_descriptor("narrows_build", "What runs.", None, MetricType::Info)?;
        build.encode_info(&[("version", env!("CARGO_PKG_VERSION"))])?;
        let usage = Usage::now();
        if let Some(cpu) = usage.cpu.as_ref().map(Duration::as_secs_f64) {
            sheet.counters("process_cpu_seconds", "User and system time.", [([], cpu)])?;
        }
        let gauges = [
            ("process_resident_memory_bytes", "Memory in use.", usage.resident_bytes),
            ("process_virtual_memory_bytes", "Address space in use.", usage.virtual_bytes),
            ("process_open_fds", "Open files and sockets.", usage.fds_open),
            ("process_max_fds", "So many may be open.", usage.fds_max),
        ];
        for (name, help, value) in gauges {
            if let Some(value) = value {
                sheet.gauge(name, help, value)?;
            }
        }
        sheet.gauge("process_start_time_seconds", "When the process started.", self.0.standing.started().get())
    }
}

fn timestamp(at: UnixSeconds) -> i64 {
    i64::try_from(at.get()).unwrap_or(i64::MAX)
}
