//! From the text of `narrows.toml` to a [`Config`].

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::values::{parse_duration, parse_size};
use super::{
    AUDIENCE_DEFAULT, CONFIG_FILE, Config, Limits, Listen, Problem, Upstream, UpstreamRoots, listeners, log, services,
    tls, traces,
};
use crate::audit::{Durability, JournalOptions};
use crate::capability::PublicKey;
use crate::request::Target;
use crate::service::Catalogue;
use crate::service::document::{Document, Field, Table};
use crate::store::Home;

const LISTEN_DEFAULT: ([u8; 4], u16) = ([127, 0, 0, 1], 7080);
const ADMIN_DEFAULT: ([u8; 4], u16) = ([127, 0, 0, 1], 7081);
/// An audience is at most this long: it is written into every challenge.
const AUDIENCE_BYTES_MAX: usize = 128;
/// A file of certificates is at most this long; the platforms' whole stores are a tenth of it.
const PEM_BYTES_MAX: u64 = 4 << 20;
/// No wait is longer than this, so that sums of times cannot overflow.
const DURATION_MAX: Duration = Duration::from_hours(24 * 366);

pub(super) fn read(text: &str, home: &Home, catalogue: Catalogue) -> Result<Config, Vec<Problem>> {
    let document = Document::new(CONFIG_FILE, text);
    let root = document.parse();
    let mut top = Table::new(&document, root.get_ref(), String::new(), root.span());
    let mut files = vec![home.config(), home.services_dir()];

    let listen_at = top.text("listen").map(|field| field.at);
    let listen = read_listen_or_off(&mut top, "listen", LISTEN_DEFAULT, home);
    let tls = tls::read(&mut top, listen.as_ref(), home, &mut files);
    let admin = read_admin(&mut top, home, listen.as_ref());
    let own = ("the home's own socket", Listen::Unix(home.socket()));
    let main = listen.iter().map(|at| ("the top level's `listen`", at.clone()));
    let taken: Vec<_> = main.chain(admin.iter().map(|at| ("`admin`", at.clone()))).chain([own]).collect();
    let listeners = listeners::read(&mut top, home, &taken, &mut files);
    let audience: Arc<str> = read_audience(&mut top).unwrap_or(AUDIENCE_DEFAULT).into();
    let insecure = top.flag("insecure").is_some_and(|field| field.value);
    check_exposure(&top, listen.as_ref(), listen_at, &audience, insecure || tls.is_some());
    let roots = read_roots(&mut top);
    let mut limits = Limits::default();
    let upstream = read_upstream(&mut top, home, &mut limits, &mut files);
    let (journal_dir, journal) = read_journal(&mut top, home);
    let log = log::read(&mut top);
    let traces = traces::read(&mut top);
    read_limits(&mut top, &mut limits);
    let read = services::read(&mut top, home, catalogue, &mut files);
    top.finish();

    let mut problems = document.into_problems();
    let services::Read { router, catalogue, problems: more } = read;
    problems.extend(more);
    match router {
        Some(services) if problems.is_empty() => Ok(Config {
            listen,
            listeners,
            tls,
            admin,
            audience,
            insecure,
            roots,
            upstream,
            journal_dir,
            journal,
            log,
            traces,
            limits,
            services,
            catalogue,
            files,
        }),
        _ => Err(problems),
    }
}

pub(super) fn read_listen(table: &mut Table<'_, '_>, key: &'static str, home: &Home) -> Option<Listen> {
    let field = table.text(key)?;
    match field.value.parse() {
        Ok(Listen::Unix(path)) => Some(Listen::Unix(home.resolve(&path))),
        Ok(address) => Some(address),
        Err(error) => {
            table.problem_at(key, field.at, error);
            None
        }
    }
}

/// The default where nothing is said; `None` is `"off"`, and what could not be read.
fn read_listen_or_off(
    table: &mut Table<'_, '_>,
    key: &'static str,
    default: ([u8; 4], u16),
    home: &Home,
) -> Option<Listen> {
    match table.text(key) {
        Some(field) if field.value == "off" => None,
        Some(_) => read_listen(table, key, home),
        // What is there and no string has been reported.
        None => Some(Listen::Tcp(SocketAddr::from(default))),
    }
}

fn read_admin(table: &mut Table<'_, '_>, home: &Home, listen: Option<&Listen>) -> Option<Listen> {
    let field = table.text("admin");
    let admin = read_listen_or_off(table, "admin", ADMIN_DEFAULT, home);
    let own = Listen::Unix(home.socket());
    if let Some(taken) = admin.as_ref().filter(|at| listen.is_some_and(|it| it.clashes_with(at)) || **at == own) {
        let at = field.as_ref().map_or_else(|| table.at(), |field| field.at.clone());
        let whose = if *taken == own { "the home's own socket" } else { "where clients connect (`listen`)" };
        table.problem_at("admin", at, format_args!("{taken} is {whose}"));
    }
    if let (Some(Listen::Tcp(address)), Some(field)) = (&admin, field)
        && !address.ip().is_loopback()
    {
        table.problem_at("admin", field.at, "only a loopback address, a Unix socket or \"off\"");
    }
    admin
}

fn read_audience<'d>(table: &mut Table<'d, '_>) -> Option<&'d str> {
    let field = table.text("audience")?;
    // It stands inside quotes in a header.
    let plain = field.value.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b'\\'));
    if field.value.is_empty() || field.value.len() > AUDIENCE_BYTES_MAX || !plain {
        table.problem_at("audience", field.at, "1 to 128 printable ASCII characters without spaces, quotes or `\\`");
        return None;
    }
    Some(field.value)
}

/// Credentials beyond this machine need TLS or the operator's word, and an audience that is not
/// everybody's.
fn check_exposure(
    table: &Table<'_, '_>,
    listen: Option<&Listen>,
    at: Option<Range<usize>>,
    audience: &str,
    protected: bool,
) {
    let Some(Listen::Tcp(address)) = listen else { return };
    if address.ip().to_canonical().is_loopback() {
        return;
    }
    let at = at.unwrap_or_else(|| table.at());
    if !protected {
        let message = format!("`listen`: {address} is not loopback, and clear text there shows capabilities to others");
        let hint = "give it a certificate in `[tls]`, listen on loopback or a Unix socket, or accept it with `insecure = true`";
        table.document().report(Some(at.clone()), Some("listen"), message, Some(hint.into()));
    }
    if audience == AUDIENCE_DEFAULT {
        let message = "`listen`: an address that is not loopback needs an `audience` of its own, not \"local\"";
        let hint = "add `audience = \"NAME\"`, the same wherever proofs for this proxy are made";
        table.document().report(Some(at), Some("listen"), message.into(), Some(hint.into()));
    }
}

fn read_roots(top: &mut Table<'_, '_>) -> BTreeMap<u32, PublicKey> {
    let mut roots = BTreeMap::new();
    for (kid, key) in top.text_map("roots") {
        let plain = !kid.value.starts_with('0') || kid.value == "0";
        let number = kid.value.parse::<u32>().ok().filter(|_| plain && !kid.value.starts_with('+'));
        let Some(number) = number else {
            top.problem_at("roots", kid.at, format_args!("\"{}\" is no key id", kid.value.escape_default()));
            continue;
        };
        match key.value.parse() {
            Ok(key) => {
                roots.insert(number, key);
            }
            Err(error) => top.problem_at("roots", key.at, format_args!("key {number}: {error}")),
        }
    }
    roots
}

fn read_upstream(top: &mut Table<'_, '_>, home: &Home, limits: &mut Limits, files: &mut Vec<PathBuf>) -> Upstream {
    let Some(mut table) = top.table("upstream", "[upstream]".into()) else { return Upstream::default() };
    let mut upstream = Upstream::default();
    for file in table.texts("extra_ca") {
        if let Some(pem) = read_certificates(&table, "extra_ca", &file, home, files) {
            upstream.extra_ca_pem.get_or_insert_default().extend(pem);
        }
    }
    if let Some(roots) = table.text("roots") {
        upstream.roots = match roots.value {
            "system" => UpstreamRoots::System,
            "bundled" => UpstreamRoots::Bundled,
            _ => read_certificates(&table, "roots", &roots, home, files)
                .map_or_else(Default::default, UpstreamRoots::Only),
        };
    }
    upstream.connect_to = read_connect_to(&mut table);
    for range in table.texts("allow_addresses") {
        let parsed = range.value.parse::<IpNet>().or_else(|_| range.value.parse::<IpAddr>().map(IpNet::from));
        match parsed {
            Ok(range) => upstream.allow_addresses.push(range.trunc()),
            Err(_) => table.problem_at("allow_addresses", range.at, "expected addresses or ranges, \"10.1.0.0/16\""),
        }
    }
    duration(&mut table, "dial", &mut limits.dial);
    duration(&mut table, "answer_head", &mut limits.answer_head);
    duration(&mut table, "answer_idle", &mut limits.answer_idle);
    table.finish();
    upstream
}

fn read_connect_to(table: &mut Table<'_, '_>) -> HashMap<Target, Target> {
    let mut connect_to = HashMap::new();
    for (name, instead) in table.text_map("connect_to") {
        match (Target::parse(name.value), Target::parse(instead.value)) {
            (Ok(name), Ok(instead)) => {
                connect_to.insert(name, instead);
            }
            (Err(error), _) => {
                table.problem_at("connect_to", name.at, format_args!("\"{}\": {error}", name.value.escape_default()));
            }
            (_, Err(error)) => {
                let value = instead.value.escape_default();
                table.problem_at("connect_to", instead.at, format_args!("\"{value}\": {error}"));
            }
        }
    }
    connect_to
}

/// A PEM file with at least one certificate, all of which read.
fn read_certificates(
    table: &Table<'_, '_>,
    key: &str,
    file: &Field<&str>,
    home: &Home,
    files: &mut Vec<PathBuf>,
) -> Option<Vec<u8>> {
    let path = home.resolve(file.value.as_ref());
    files.push(path.clone());
    let mut pem = match read_plain(&path) {
        Ok(pem) => pem,
        Err(error) => {
            table.problem_at(key, file.at.clone(), format_args!("cannot read {}: {error}", path.display()));
            return None;
        }
    };
    let certificates: Result<Vec<CertificateDer<'_>>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    if certificates.is_ok_and(|certificates| !certificates.is_empty()) {
        pem.push(b'\n');
        return Some(pem);
    }
    let message = format!("{} holds no PEM certificate, or one that does not read", path.display());
    table.problem_at(key, file.at.clone(), message);
    None
}

/// A file that is no device and not too long.
fn read_plain(path: &Path) -> std::io::Result<Vec<u8>> {
    let file = std::fs::File::open(path)?;
    let found = file.metadata()?;
    if !found.is_file() || found.len() > PEM_BYTES_MAX {
        return Err(std::io::Error::other("not a plain file of at most 4 MiB"));
    }
    let mut bytes = Vec::new();
    file.take(PEM_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn read_journal(top: &mut Table<'_, '_>, home: &Home) -> (PathBuf, JournalOptions) {
    let mut options = JournalOptions::default();
    let Some(mut table) = top.table("journal", "[journal]".into()) else { return (home.audit_dir(), options) };
    let dir = table.text("dir").map_or_else(|| home.audit_dir(), |dir| home.resolve(dir.value.as_ref()));
    if let Some(durability) = table.text("durability") {
        match durability.value {
            "kernel" => options.durability = Durability::Kernel,
            "disk" => options.durability = Durability::Disk,
            "always" => options.durability = Durability::Always,
            _ => table.problem_at("durability", durability.at, "expected \"kernel\", \"disk\" or \"always\""),
        }
    }
    if let Some(size) = table.text("rotate") {
        match parse_size(size.value) {
            Ok(bytes) if bytes >= 1 << 16 => options.rotate_bytes = bytes,
            Ok(_) => table.problem_at("rotate", size.at, "at least \"64k\""),
            Err(error) => table.problem_at("rotate", size.at, error),
        }
    }
    if let Some(number) = bounded(&mut table, "in_flight_max", 16, 1 << 20) {
        options.in_flight_max = number;
    }
    options.stdout = table.flag("stdout").is_some_and(|field| field.value);
    table.finish();
    (dir, options)
}

fn read_limits(top: &mut Table<'_, '_>, limits: &mut Limits) {
    let Some(mut table) = top.table("limits", "[limits]".into()) else { return };
    if let Some(number) = bounded(&mut table, "connections_max", 1, 1 << 20) {
        limits.connections_max = number;
    }
    for (key, limit) in [
        ("authority_tunnels_max", &mut limits.authority_tunnels_max),
        ("authority_requests_max", &mut limits.authority_requests_max),
    ] {
        if let Some(number) = bounded(&mut table, key, 1, 1 << 20) {
            *limit = Some(number);
        }
    }
    duration(&mut table, "authenticate", &mut limits.authenticate);
    duration(&mut table, "unread", &mut limits.unread);
    if let Some(number) = bounded(&mut table, "hops_max", 0, 32) {
        limits.hops_max = u32::try_from(number).unwrap_or(limits.hops_max);
    }
    duration(&mut table, "head_read", &mut limits.head_read);
    duration(&mut table, "client_idle", &mut limits.client_idle);
    duration(&mut table, "handshake", &mut limits.handshake);
    duration(&mut table, "upload_idle", &mut limits.upload_idle);
    duration(&mut table, "tunnel_idle", &mut limits.tunnel_idle);
    duration(&mut table, "tunnel_age_max", &mut limits.tunnel_age_max);
    duration(&mut table, "drain", &mut limits.drain);
    duration(&mut table, "presentation_ttl_max", &mut limits.presentation_ttl_max);
    table.finish();
}

fn bounded(table: &mut Table<'_, '_>, key: &'static str, least: usize, most: usize) -> Option<usize> {
    let field = table.number(key)?;
    let number = usize::try_from(field.value).ok().filter(|number| (least..=most).contains(number));
    if number.is_none() {
        table.problem_at(key, field.at, format_args!("expected a number from {least} to {most}"));
    }
    number
}

pub(super) fn duration(table: &mut Table<'_, '_>, key: &'static str, limit: &mut Duration) {
    let Some(field) = table.text(key) else { return };
    match parse_duration(field.value) {
        Ok(duration) if duration > DURATION_MAX => table.problem_at(key, field.at, "at most \"366d\""),
        Ok(duration) if duration.is_zero() => table.problem_at(key, field.at, "more than zero"),
        Ok(duration) => *limit = duration,
        Err(error) => table.problem_at(key, field.at, error),
    }
}
