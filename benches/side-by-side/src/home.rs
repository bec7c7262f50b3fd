//! What Narrows is set up with: its home, and who may ask.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context as _;
use narrows::capability::{
    Algorithm, AuthorityBlock, Capability, Context, Credentials, DelegationBlock, PrivateKey, Proof, Purpose, delegate,
    mint,
};
use narrows::clock::UnixSeconds;
use narrows::credential::Secret;
use narrows::store::{Home, SecretStore, ca::Ca, keys, random};

use crate::stage::{self, BULK_HOST, COLD_NAMES, HOST, INJECTED, ORIGIN, cold_name, private};

/// How much of everything there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Blocks of the capability; each but the first is a delegation.
    pub(crate) blocks: u8,
    /// Checks of the path in each delegation.
    pub(crate) checks: usize,
    /// Rows of each check, of which the last is the one that holds.
    pub(crate) rows: usize,
    /// Services of the configuration, of which the last is the one that is asked for.
    pub(crate) services: usize,
    /// Client connections that may be open.
    pub(crate) connections_max: usize,
    /// Requests that may be begun and without a line of the journal.
    pub(crate) in_flight_max: usize,
}

impl Default for Shape {
    fn default() -> Self {
        Self { blocks: 2, checks: 1, rows: 1, services: 1, connections_max: 4096, in_flight_max: 8192 }
    }
}

/// Writes a home of this shape, and makes the credentials of an agent of it.
pub(crate) fn write(folder: &Path, at: &Path, origins: [SocketAddr; 2], shape: &Shape) -> anyhow::Result<Agent> {
    let home = Home::at(at)?;
    home.create()?;
    let now = UnixSeconds::now();
    Ca::create(&home, &[], now)?;
    let (root, _) = keys::create_root(&home)?;
    let names = (0..COLD_NAMES).map(cold_name).chain([HOST.to_owned()]);
    let [origin, bulk] = origins;
    let dials = names.map(|name| (name, origin)).chain([(BULK_HOST.to_owned(), bulk)]);
    let dials: Vec<String> = dials.map(|(name, at)| format!("'{name}:443' = '{at}'")).collect();
    let mut config = format!(
        "listen = '127.0.0.1:0'\nadmin = 'off'\n[roots]\n1 = '{root}'\n[limits]\nhops_max = 32\n\
         connections_max = {connections_max}\nauthority_tunnels_max = {connections_max}\n[journal]\nin_flight_max = {in_flight_max}\n[upstream]\nextra_ca = '{ca}'\nconnect_to = {{ {dials} }}\n",
        connections_max = shape.connections_max,
        in_flight_max = shape.in_flight_max,
        ca = stage::ca_file(folder, ORIGIN).display(),
        dials = dials.join(", "),
    );
    for other in 1..shape.services {
        service(&mut config, &format!("other-{other}"), &format!("*.other-{other}.test"))?;
    }
    service(&mut config, "acme", "*.acme.test")?;
    private(&home.config(), &config)?;
    let secret = Secret::new(INJECTED.trim_start_matches("Bearer ").into()).context("the secret is not one")?;
    SecretStore::new(&home).set(&"acme".parse()?, &secret)?;
    Agent::new(&keys::read_private(&home.root_key())?, now, shape)
}

fn service(config: &mut String, name: &str, hosts: &str) -> anyhow::Result<()> {
    writeln!(
        config,
        "[[service]]\nname = '{name}'\ncredential = 'acme'\nhosts = ['{hosts}']\n\
         inject = 'Authorization: Bearer {{secret}}'"
    )?;
    Ok(())
}

/// Who holds a capability, and proves it anew for each tunnel.
#[derive(Debug)]
pub(crate) struct Agent {
    capability: Capability,
    key: PrivateKey,
}

impl Agent {
    fn new(root: &PrivateKey, now: UnixSeconds, shape: &Shape) -> anyhow::Result<Self> {
        let (capability, key) = chain(root, now, shape)?;
        Ok(Self { capability: capability.seal()?, key })
    }

    /// Good for one CONNECT to `target`.
    pub(crate) fn credentials(&self, target: &str) -> anyhow::Result<String> {
        let context = Context::new("local", Purpose::Connect { target });
        let now = UnixSeconds::now();
        let proof = Proof::sign(&self.key, &self.capability.sha256(), now, 60, random::bytes()?, &context)?;
        Ok(Credentials { capability: self.capability.clone(), proof }.to_text())
    }
}

/// A capability of this shape, not sealed, and its holder's key.
fn chain(root: &PrivateKey, now: UnixSeconds, shape: &Shape) -> anyhow::Result<(Capability, PrivateKey)> {
    let mut key = keys::generate(Algorithm::Ed25519)?;
    let right = |operation: &str| ("acme".to_owned(), operation.to_owned());
    let authority = AuthorityBlock {
        holder: *key.public(),
        user: Some("alice@example.com".to_owned()),
        rights: vec![right("read"), right("write")],
        caveats: vec![format!("check if time($time), $time < {}", now + 3 * 3600)],
        budgets: Vec::new(),
        rates: Vec::new(),
    };
    let mut capability = mint(root, 1, &authority, random::bytes()?)?;
    for number in 1..shape.blocks {
        let next = keys::generate(Algorithm::Ed25519)?;
        let delegation = DelegationBlock {
            holder: *next.public(),
            agent: Some(format!("agent-{number}")),
            caveats: vec![check(shape.rows); shape.checks],
            budgets: Vec::new(),
            rates: Vec::new(),
        };
        capability = delegate(&capability, &key, &delegation, random::bytes()?)?;
        key = next;
    }
    Ok((capability, key))
}

/// Another authority of a home, who can make a new chain for each tunnel.
pub(crate) struct Deep {
    parent: Capability,
    key: PrivateKey,
}

impl Deep {
    /// A chain of as many blocks; its last is made anew each time.
    pub(crate) fn new(home: &Path, blocks: u8) -> anyhow::Result<Self> {
        let root = keys::read_private(&Home::at(home)?.root_key())?;
        let shape = Shape { blocks: blocks.saturating_sub(1).max(1), ..Shape::default() };
        let (parent, key) = chain(&root, UnixSeconds::now(), &shape)?;
        Ok(Self { parent, key })
    }

    /// An agent whose chain nobody has met.
    pub(crate) fn fresh(&self) -> anyhow::Result<Agent> {
        let key = keys::generate(Algorithm::Ed25519)?;
        let last = DelegationBlock {
            holder: *key.public(),
            agent: Some("fresh".to_owned()),
            caveats: Vec::new(),
            budgets: Vec::new(),
            rates: Vec::new(),
        };
        let capability = delegate(&self.parent, &self.key, &last, random::bytes()?)?;
        Ok(Agent { capability: capability.seal()?, key })
    }
}

/// A check of as many rows; all but the last fail at their last predicate.
fn check(rows: usize) -> String {
    let others = (1..rows).map(|number| format!("/v1/other-{number}/"));
    let rows: Vec<String> = others.chain(["/v1/items/".to_owned()]).map(|prefix| row(&prefix)).collect();
    format!("check if {}", rows.join(" or "))
}

fn row(prefix: &str) -> String {
    format!("service(\"acme\"), path($path), $path.starts_with(\"{prefix}\")")
}
