//! Capabilities made by hand: every field can be wrong, and yet every signature is right, so that a refusal is due to the
//! rule under test and not to a signature.

use std::collections::BTreeMap;

use biscuit_auth::datalog::SymbolTable;
use biscuit_auth::format::schema::{self, proof};
use biscuit_auth::{Algorithm as BiscuitAlgorithm, BiscuitBuilder, KeyPair, PrivateKey as BiscuitKey};
use narrows::capability::{
    Algorithm, Capability, InvalidCapability, Limits, PrivateKey, PublicKey, Roots, Verified, verify,
};
use narrows::clock::UnixSeconds;
use narrows::request::{CanonicalPath, EncodedSlash, Facts, Host, ProofKind, Scheme, Text};
use prost::Message;

pub(crate) const ROOT: u8 = 1;
pub(crate) const KID: u32 = 7;
/// Seeds of holders. A thief has a key too.
pub(crate) const ALICE: u8 = 10;
pub(crate) const BOB: u8 = 11;
pub(crate) const CAROL: u8 = 12;
pub(crate) const THIEF: u8 = 66;

pub(crate) fn private(seed: u8) -> PrivateKey {
    PrivateKey::from_seed(Algorithm::Ed25519, [seed; 32]).expect("any seed is a key")
}

pub(crate) fn public(seed: u8) -> PublicKey {
    *private(seed).public()
}

pub(crate) fn pair(seed: u8) -> KeyPair {
    pair_of(BiscuitAlgorithm::Ed25519, seed)
}

pub(crate) fn pair_of(algorithm: BiscuitAlgorithm, seed: u8) -> KeyPair {
    KeyPair::from(&BiscuitKey::from_bytes(&[seed; 32], algorithm).expect("any seed is a key"))
}

pub(crate) fn roots() -> Roots {
    Roots::new(BTreeMap::from([(KID, public(ROOT))]))
}

/// `holder(0, hex:…);`
pub(crate) fn holder(seed: u8) -> String {
    format!("holder(0, hex:{});", hex::encode(public(seed).as_bytes()))
}

/// The facts that an authority block must have, for ALICE.
pub(crate) fn authority() -> String {
    format!("cap(1, null); {}", holder(ALICE))
}

/// A block's content from Datalog, with a symbol table of its own.
pub(crate) fn content(code: &str) -> schema::Block {
    content_after(&[], code)
}

/// A block's content from Datalog, its symbol table continuing those of the blocks before.
pub(crate) fn content_after(before: &[&schema::Block], code: &str) -> schema::Block {
    let symbols = before.iter().flat_map(|block| block.symbols.clone()).collect();
    let biscuit = BiscuitBuilder::new()
        .code(code)
        .unwrap_or_else(|error| panic!("{code}: {error}"))
        .build_with_key_pair(&pair(ROOT), SymbolTable::from(symbols).expect("fresh symbols"), &pair(2))
        .expect("builds");
    let container = schema::Biscuit::decode(biscuit.to_vec().expect("encodes").as_slice()).expect("decodes");
    let mut content = schema::Block::decode(container.authority.block.as_slice()).expect("decodes");
    content.version = Some(6);
    content
}

/// One block before signing.
pub(crate) struct Link {
    pub(crate) payload: Vec<u8>,
    /// Who signs it besides the chain key: a delegation.
    pub(crate) signer: Option<u8>,
    pub(crate) chain_key: KeyPair,
    pub(crate) version: Option<u32>,
}

impl Link {
    pub(crate) fn new(content: &schema::Block, signer: Option<u8>, chain_key: u8) -> Self {
        Self { payload: content.encode_to_vec(), signer, chain_key: pair(chain_key), version: Some(1) }
    }
}

/// A capability before signing.
pub(crate) struct Forgery {
    pub(crate) root: KeyPair,
    pub(crate) kid: Option<u32>,
    pub(crate) links: Vec<Link>,
    pub(crate) sealed: bool,
}

impl Forgery {
    /// An authority block alone.
    pub(crate) fn of(authority: &schema::Block) -> Self {
        Self { root: pair(ROOT), kid: Some(KID), links: vec![Link::new(authority, None, 100)], sealed: false }
    }

    /// ALICE by the root, who delegates to BOB with this code.
    pub(crate) fn delegation(code: &str) -> Self {
        Self::of(&content(&authority())).delegate(ALICE, &format!("{} {code}", holder(BOB)))
    }

    /// ALICE by the root, who narrows with this code.
    pub(crate) fn narrowing(code: &str) -> Self {
        let first = content(&authority());
        let second = content_after(&[&first], code);
        let mut forgery = Self::of(&first);
        forgery.links.push(Link::new(&second, None, 101));
        forgery
    }

    pub(crate) fn delegate(mut self, signer: u8, code: &str) -> Self {
        let chain_key = 100 + u8::try_from(self.links.len()).expect("few links");
        self.links.push(Link::new(&content(code), Some(signer), chain_key));
        self
    }

    pub(crate) fn schema(&self) -> schema::Biscuit {
        let mut signer = &self.root;
        let mut signed: Vec<schema::SignedBlock> = Vec::new();
        for link in &self.links {
            let before = signed.last().map(|block| block.signature.clone());
            signed.push(sign(link, signer, before.as_deref()));
            signer = &link.chain_key;
        }
        let last = signed.last().expect("an authority block");
        let end = if self.sealed {
            proof::Content::FinalSignature(signer.sign(&seal_input(last)).expect("signs").to_bytes().to_vec())
        } else {
            proof::Content::NextSecret(signer.private().to_bytes().to_vec())
        };
        let authority = signed.remove(0);
        schema::Biscuit {
            root_key_id: self.kid,
            authority,
            blocks: signed,
            proof: schema::Proof { content: Some(end) },
        }
    }

    pub(crate) fn capability(&self) -> Capability {
        capability(&self.schema())
    }

    pub(crate) fn verify(&self) -> Result<Verified, InvalidCapability> {
        judged(&self.capability(), &roots())
    }

    /// The failure class, or "accepted".
    pub(crate) fn class(&self) -> &'static str {
        class(&self.schema())
    }
}

pub(crate) fn capability(schema: &schema::Biscuit) -> Capability {
    Capability::from_bytes(&schema.encode_to_vec()).expect("not too large")
}

/// The failure class of a container, or "accepted".
pub(crate) fn class(schema: &schema::Biscuit) -> &'static str {
    class_of_bytes(&schema.encode_to_vec())
}

pub(crate) fn class_of_bytes(bytes: &[u8]) -> &'static str {
    let verdict = Capability::from_bytes(bytes).and_then(|capability| judged(&capability, &roots()));
    verdict.map_or_else(InvalidCapability::as_str, |_| "accepted")
}

/// The verdict on a capability, held to the library's: what is accepted it accepts, and the signatures that we refuse it
/// refuses.
pub(crate) fn judged(capability: &Capability, roots: &Roots) -> Result<Verified, InvalidCapability> {
    let verdict = verify(capability, roots, &Limits::default());
    let matters = matches!(verdict, Ok(_) | Err(InvalidCapability::Signature));
    if let Some(root) = roots.get(KID).filter(|_| matters) {
        let algorithm = match root.algorithm() {
            Algorithm::Ed25519 => BiscuitAlgorithm::Ed25519,
            Algorithm::P256 => BiscuitAlgorithm::Secp256r1,
        };
        let root = biscuit_auth::PublicKey::from_bytes(root.as_bytes(), algorithm).expect("a key");
        let library = biscuit_auth::Biscuit::from(capability.as_bytes(), root);
        assert_eq!(verdict.is_ok(), library.is_ok(), "{verdict:?}, the library {:?}", library.err());
    }
    verdict
}

/// Whether the biscuit library itself takes it.
pub(crate) fn library_accepts(schema: &schema::Biscuit) -> bool {
    biscuit_auth::Biscuit::from(schema.encode_to_vec(), pair(ROOT).public()).is_ok()
}

/// Signs a block as the biscuit specification says, in the version that the link names.
fn sign(link: &Link, signer: &KeyPair, before: Option<&[u8]>) -> schema::SignedBlock {
    let external = link.signer.map(|seed| {
        let input = [
            b"\0EXTERNAL\0\0VERSION\0".as_slice(),
            &[1, 0, 0, 0],
            b"\0PAYLOAD\0",
            &link.payload,
            b"\0PREVSIG\0",
            before.expect("not the authority block"),
        ]
        .concat();
        schema::ExternalSignature {
            signature: pair(seed).sign(&input).expect("signs").to_bytes().to_vec(),
            public_key: pair(seed).public().to_proto(),
        }
    });
    let next = link.chain_key.public().to_proto();
    let input = signed_input(link, &next, before, external.as_ref());
    schema::SignedBlock {
        block: link.payload.clone(),
        next_key: next,
        signature: signer.sign(&input).expect("signs").to_bytes().to_vec(),
        external_signature: external,
        version: link.version,
    }
}

fn signed_input(
    link: &Link,
    next: &schema::PublicKey,
    before: Option<&[u8]>,
    external: Option<&schema::ExternalSignature>,
) -> Vec<u8> {
    let algorithm = next.algorithm.to_le_bytes();
    if link.version.unwrap_or(0) == 0 {
        let external = external.map_or(&[][..], |external| &external.signature);
        return [&link.payload, external, &algorithm, &next.key].concat();
    }
    let mut input = [b"\0BLOCK\0\0VERSION\0".as_slice(), &[1, 0, 0, 0], b"\0PAYLOAD\0", &link.payload].concat();
    input.extend([b"\0ALGORITHM\0".as_slice(), &algorithm, b"\0NEXTKEY\0", &next.key].concat());
    if let Some(before) = before {
        input.extend([b"\0PREVSIG\0", before].concat());
    }
    if let Some(external) = external {
        input.extend([b"\0EXTERNALSIG\0", external.signature.as_slice()].concat());
    }
    input
}

fn seal_input(last: &schema::SignedBlock) -> Vec<u8> {
    [&last.block, &last.next_key.algorithm.to_le_bytes()[..], &last.next_key.key, &last.signature].concat()
}

/// A request to change and ask about.
pub(crate) struct Request {
    pub(crate) time: u64,
    pub(crate) service: &'static str,
    pub(crate) operation: &'static str,
    pub(crate) action: Option<&'static str>,
    pub(crate) method: Option<&'static str>,
    pub(crate) path: Option<&'static str>,
    pub(crate) params: Vec<(Text, Text)>,
    pub(crate) body_size: Option<u64>,
    pub(crate) hop: u32,
}

impl Default for Request {
    fn default() -> Self {
        Self {
            time: 1_800_000_000,
            service: "acme",
            operation: "read",
            action: None,
            method: Some("GET"),
            path: Some("/v1/items"),
            params: Vec::new(),
            body_size: Some(0),
            hop: 0,
        }
    }
}

impl Request {
    pub(crate) fn permitted_by(&self, verified: &Verified) -> bool {
        let verdict = self.ask(|facts| verified.permits(facts));
        assert_eq!(verdict, self.ask(|facts| verified.failures(facts)).is_empty(), "one verdict, asked twice");
        verdict
    }

    pub(crate) fn ask<T>(&self, question: impl FnOnce(&Facts<'_>) -> T) -> T {
        let host = Host::parse("api.acme.test").expect("a host");
        let path = self.path.map(|path| CanonicalPath::parse(path, EncodedSlash::Refuse).expect("canonical"));
        question(&Facts {
            time: UnixSeconds(self.time),
            service: self.service,
            operation: self.operation,
            action: self.action,
            scheme: Scheme::Https,
            host: &host,
            port: 443,
            method: self.method,
            path: path.as_ref(),
            params: &self.params,
            body_size: self.body_size,
            audience: "local",
            proof: ProofKind::Connect,
            hop: self.hop,
        })
    }
}
