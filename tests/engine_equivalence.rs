//! The compiled caveats give the biscuit engine's verdict, with the same list of failing checks.
//!
//! Random checks, well-typed and not, in a chain of three blocks, against random requests. What compiles must never make
//! the engine fail to evaluate; what is well-typed must compile.

#![expect(clippy::expect_used, reason = "helpers of a test")]

use std::collections::BTreeMap;
use std::time::Duration;

use aws_lc_rs::digest;
use biscuit_auth::builder::{self, Fact};
use biscuit_auth::error::{FailedCheck, Logic, Token};
use biscuit_auth::{AuthorizerBuilder, AuthorizerLimits, Biscuit};
use narrows::capability::{
    Algorithm, AuthorityBlock, Capability, DelegationBlock, InvalidCapability, IssueError, Limits, NarrowingBlock,
    PrivateKey, Roots, Verified, delegate, mint, narrow, verify,
};
use narrows::clock::UnixSeconds;
use narrows::request::{CanonicalPath, EncodedSlash, Facts, Host, ProofKind, Scheme, Text};
use proptest::prelude::{ProptestConfig, any, proptest};
use proptest::test_runner::TestCaseResult;

/// Small pools, so that values meet.
const TEXTS: [&str; 14] =
    ["acme", "read", "write", "GET", "/", "/a", "/a/", "/a/b", "/ab", "", "é", "日本", "a.test", "connect"];
const PATHS: [&str; 6] = ["/", "/a", "/a/", "/a/b", "/ab", "/%C3%A9"];
const NUMBERS: [i64; 9] = [-1, 0, 1, 2, 3, 80, 443, 65_536, i64::MAX];
const NOW: u64 = 1_800_000_000;
const TEXT_COLUMNS: [&str; 11] = [
    "service",
    "operation",
    "action",
    "scheme",
    "host",
    "method",
    "path",
    "audience",
    "proof",
    "param:repo",
    "param:org",
];
const NUMBER_COLUMNS: [&str; 3] = ["port", "body_size", "hop"];

/// Choices drawn from random bytes; zeros when they run out, so that shrinking the bytes shrinks what is chosen.
struct Dice<'a> {
    bytes: std::slice::Iter<'a, u8>,
}

impl Dice<'_> {
    fn roll(&mut self, sides: usize) -> usize {
        usize::from(self.bytes.next().copied().unwrap_or(0)) % sides
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.roll(from.len())]
    }

    fn text(&mut self) -> String {
        format!("{:?}", self.pick(&TEXTS))
    }

    fn number(&mut self) -> String {
        self.pick(&NUMBERS).to_string()
    }

    fn date(&mut self) -> String {
        UnixSeconds(NOW - 2 + self.roll(5) as u64).to_string()
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Text,
    Number,
    Date,
}

/// A random row: some facts, each by constant or variable, and expressions on the variables.
struct Row<'a, 'b> {
    dice: &'a mut Dice<'b>,
    variables: Vec<(String, Kind)>,
    well_typed: bool,
}

impl Row<'_, '_> {
    fn write(mut self) -> String {
        let mut parts = Vec::new();
        let mut columns: Vec<(&str, Kind)> = TEXT_COLUMNS.iter().map(|column| (*column, Kind::Text)).collect();
        columns.extend(NUMBER_COLUMNS.iter().map(|column| (*column, Kind::Number)));
        columns.push(("time", Kind::Date));
        for index in 0..=self.dice.roll(2) {
            let (column, kind) = columns.swap_remove(self.dice.roll(columns.len()));
            let term = if self.dice.roll(5) == 0 {
                self.constant(kind)
            } else {
                self.variables.push((format!("$v{index}"), kind));
                format!("$v{index}")
            };
            parts.push(match column.split_once(':') {
                Some((param, name)) => format!("{param}({name:?}, {term})"),
                None => format!("{column}({term})"),
            });
        }
        if self.dice.roll(12) == 1 {
            parts.push("approved_by(hex:aa)".to_owned());
        }
        for _ in 0..self.dice.roll(3) {
            parts.push(self.test(2));
        }
        parts.join(", ")
    }

    fn constant(&mut self, kind: Kind) -> String {
        match kind {
            Kind::Text => self.dice.text(),
            Kind::Number => self.dice.number(),
            Kind::Date => self.dice.date(),
        }
    }

    /// Another type than asked for, now and then, when types need not be right.
    fn kind(&mut self, wanted: Kind) -> Kind {
        if self.well_typed || self.dice.roll(200) != 1 {
            wanted
        } else {
            self.dice.pick(&[Kind::Text, Kind::Number, Kind::Date])
        }
    }

    fn operand(&mut self, wanted: Kind) -> String {
        let kind = self.kind(wanted);
        let variables: Vec<String> =
            self.variables.iter().filter(|(_, known)| *known == kind).map(|(name, _)| name.clone()).collect();
        match self.dice.roll(4) {
            0 => self.constant(kind),
            1 if kind == Kind::Number => format!("{}.length()", self.operand(Kind::Text)),
            _ if variables.is_empty() => self.constant(kind),
            _ => variables[self.dice.roll(variables.len())].clone(),
        }
    }

    fn test(&mut self, depth: usize) -> String {
        if depth > 0 {
            match self.dice.roll(8) {
                4 => return format!("({} && {})", self.test(depth - 1), self.test(depth - 1)),
                5 => return format!("({} || {})", self.test(depth - 1), self.test(depth - 1)),
                6 => {
                    return format!(
                        "({} || {} || {})",
                        self.test(depth - 1),
                        self.test(depth - 1),
                        self.test(depth - 1)
                    );
                }
                7 => return format!("!({})", self.test(depth - 1)),
                _ => {}
            }
        }
        if !self.well_typed && self.dice.roll(100) == 1 {
            return self.operand(Kind::Text);
        }
        let kind = self.dice.pick(&[Kind::Text, Kind::Text, Kind::Number, Kind::Date]);
        if self.dice.roll(4) == 0 {
            let set = (0..=self.dice.roll(3)).map(|_| self.constant(kind)).collect::<Vec<_>>().join(", ");
            return format!("{{{set}}}.contains({})", self.operand(kind));
        }
        let (left, right) = (self.operand(kind), self.operand(kind));
        let ordered = kind != Kind::Text || (!self.well_typed && self.dice.roll(60) == 1);
        let operators: &[&str] = if ordered {
            &["==", "!=", "===", "!==", "<", "<=", ">", ">="]
        } else {
            &["==", "!=", "===", "!==", "starts_with", "ends_with", "contains"]
        };
        let operator = self.dice.pick(operators);
        if operator.contains('_') || operator == "contains" {
            format!("{left}.{operator}({right})")
        } else {
            format!("{left} {operator} {right}")
        }
    }
}

fn checks(dice: &mut Dice<'_>, well_typed: bool) -> Vec<String> {
    let rows = |dice: &mut Dice<'_>| {
        let row = |dice: &mut Dice<'_>| Row { dice, variables: Vec::new(), well_typed }.write();
        (0..=dice.roll(5)).map(|_| row(dice)).collect::<Vec<_>>().join(" or ")
    };
    (0..=dice.roll(2)).map(|_| format!("check if {}", rows(dice))).collect()
}

fn key(seed: u8) -> PrivateKey {
    PrivateKey::from_seed(Algorithm::Ed25519, [seed; 32]).expect("any seed is a key")
}

fn chain(dice: &mut Dice<'_>, well_typed: bool) -> Result<Capability, IssueError> {
    let mut rights = vec![(dice.pick(&TEXTS).to_owned(), dice.pick(&["read", "write", "*"]).to_owned())];
    rights.push((dice.pick(&["acme", ""]).to_owned(), dice.pick(&["*", "read"]).to_owned()));
    let block = AuthorityBlock {
        holder: *key(2).public(),
        user: None,
        rights,
        caveats: checks(dice, well_typed),
        budgets: vec![],
        rates: vec![],
    };
    let capability = mint(&key(1), 0, &block, [101; 32])?;
    let narrowing = NarrowingBlock { caveats: checks(dice, well_typed), ..NarrowingBlock::default() };
    let capability = narrow(&capability, &narrowing, [102; 32])?;
    let delegation = DelegationBlock {
        holder: *key(3).public(),
        agent: None,
        caveats: checks(dice, well_typed),
        budgets: vec![],
        rates: vec![],
    };
    delegate(&capability, &key(2), &delegation, [103; 32])
}

/// A random request, as the proxy sees it and as facts for the engine.
fn with_request<T>(dice: &mut Dice<'_>, ask: impl FnOnce(&Facts<'_>, Vec<Fact>) -> T) -> T {
    let host = Host::parse(dice.pick(&["a.test", "b.test"])).expect("a host");
    let path = CanonicalPath::parse(dice.pick(&PATHS), EncodedSlash::Refuse).expect("canonical");
    let mut params: Vec<(Text, Text)> = Vec::new();
    for name in ["repo", "org", "other"] {
        if dice.roll(3) > 0 {
            params.push((name.into(), dice.pick(&TEXTS).into()));
        }
    }
    let facts = Facts {
        time: UnixSeconds(NOW - 2 + dice.roll(5) as u64),
        service: dice.pick(&["acme", "", "read"]),
        operation: dice.pick(&["read", "write", "*"]),
        action: (dice.roll(2) == 0).then(|| dice.pick(&TEXTS)),
        scheme: dice.pick(&[Scheme::Https, Scheme::Http]),
        host: &host,
        port: dice.pick(&[80, 443, 3]),
        method: (dice.roll(4) > 0).then(|| dice.pick(&["GET", "POST"])),
        path: (dice.roll(4) > 0).then_some(&path),
        params: &params,
        body_size: (dice.roll(3) > 0).then(|| dice.pick(&[0, 1, 65_536, i64::MAX as u64])),
        audience: dice.pick(&["acme", "a.test", "é"]),
        proof: dice.pick(&[ProofKind::Connect, ProofKind::Request, ProofKind::Presentation]),
        hop: dice.pick(&[0, 1, 2]),
    };
    ask(&facts, engine_facts(&facts))
}

fn engine_facts(facts: &Facts<'_>) -> Vec<Fact> {
    let text = |name: &str, value: &str| builder::fact(name, &[builder::string(value)]);
    let number = |name: &str, value: i64| builder::fact(name, &[builder::int(value)]);
    let mut list = vec![
        builder::fact("time", &[builder::Term::Date(facts.time.get())]),
        text("service", facts.service),
        text("operation", facts.operation),
        text("scheme", facts.scheme.as_str()),
        text("host", facts.host.as_str()),
        number("port", i64::from(facts.port)),
        text("audience", facts.audience),
        text("proof", facts.proof.as_str()),
        number("hop", i64::from(facts.hop)),
    ];
    list.extend(facts.action.map(|action| text("action", action)));
    list.extend(facts.method.map(|method| text("method", method)));
    list.extend(facts.path.map(|path| text("path", path.as_str())));
    list.extend(facts.body_size.map(|size| number("body_size", i64::try_from(size).expect("in range"))));
    let param = |(name, value): &(Text, Text)| builder::fact("param", &[builder::string(name), builder::string(value)]);
    list.extend(facts.params.iter().map(param));
    list
}

/// What the engine says: whether a right covers the request, and the failing checks; or that it could not evaluate.
fn engine(biscuit: &Biscuit, facts: Vec<Fact>) -> Result<(bool, Vec<(usize, usize)>), Token> {
    let mut authorizer = AuthorizerBuilder::new()
        .code(r#"allow if service($s), operation($o), right($s, $o); allow if service($s), right($s, "*");"#)?;
    for fact in facts {
        authorizer = authorizer.fact(fact)?;
    }
    let failed = match authorizer.build(biscuit)?.authorize_with_limits(generous()) {
        Ok(_) => return Ok((true, Vec::new())),
        Err(Token::FailedLogic(Logic::Unauthorized { checks, .. })) => (true, checks),
        Err(Token::FailedLogic(Logic::NoMatchingPolicy { checks })) => (false, checks),
        Err(error) => return Err(error),
    };
    let place = |check: FailedCheck| match check {
        FailedCheck::Block(check) => (check.block_id as usize, check.check_id as usize),
        FailedCheck::Authorizer(_) => unreachable!("the authorizer has no checks"),
    };
    Ok((failed.0, failed.1.into_iter().map(place).collect()))
}

/// The library's own limit of 1 ms fails sound capabilities on a busy machine.
fn generous() -> AuthorizerLimits {
    AuthorizerLimits { max_facts: 10_000, max_iterations: 1000, max_time: Duration::from_mins(1) }
}

fn native(verified: &Verified, facts: &Facts<'_>) -> (bool, Vec<(usize, usize)>) {
    let failures = verified.failures(facts);
    assert_eq!(verified.permits(facts), failures.is_empty(), "one verdict");
    let right = failures.iter().all(|failure| failure.caveat.is_some());
    (right, failures.iter().filter_map(|failure| Some((failure.block, failure.caveat?))).collect())
}

/// What came of one chain.
#[derive(Default)]
struct Tally {
    compiled: usize,
    refused: usize,
    permitted: usize,
    denied: usize,
}

/// Runs one chain and four requests through both.
fn compare(bytes: &[u8], well_typed: bool) -> Result<Tally, String> {
    let refused = Tally { refused: 1, ..Tally::default() };
    let mut dice = Dice { bytes: bytes.iter() };
    let capability = match chain(&mut dice, well_typed) {
        Ok(capability) => capability,
        Err(IssueError::Invalid(InvalidCapability::Check)) => return Ok(refused),
        // The library's own parser knows some of what is wrong.
        Err(IssueError::Caveat { .. }) if !well_typed => return Ok(refused),
        Err(error) => return Err(format!("{error:?}")),
    };
    let roots = Roots::new(BTreeMap::from([(0, *key(1).public())]));
    let verified = verify(&capability, &roots, &Limits::default()).map_err(|error| format!("{error:?}"))?;
    let root = biscuit_auth::PublicKey::from_bytes(key(1).public().as_bytes(), biscuit_auth::Algorithm::Ed25519);
    let biscuit = Biscuit::from(capability.as_bytes(), root.expect("a key")).expect("the library reads it");
    let mut tally = Tally { compiled: 1, ..Tally::default() };
    for _ in 0..4 {
        let permitted = with_request(&mut dice, |facts, engine_facts| {
            let expected = engine(&biscuit, engine_facts).map_err(|error| format!("the engine failed: {error:?}"))?;
            let actual = native(&verified, facts);
            if actual == expected {
                Ok(verified.permits(facts))
            } else {
                Err(format!("{actual:?}, engine {expected:?}\n{facts:?}\n{biscuit}"))
            }
        })?;
        tally.permitted += usize::from(permitted);
        tally.denied += usize::from(!permitted);
    }
    Ok(tally)
}

fn outcome(result: Result<Tally, String>, must_compile: bool) -> TestCaseResult {
    let tally = result.map_err(proptest::test_runner::TestCaseError::fail)?;
    proptest::prop_assert!(tally.compiled == 1 || !must_compile, "a well-typed check was refused");
    Ok(())
}

/// The property would hold of a generator that only writes nonsense.
#[test]
fn the_generator_writes_what_matters() {
    let mut total = Tally::default();
    for seed in 0..200_u64 {
        let bytes: Vec<u8> = (0..64_u64)
            .flat_map(|index| digest::digest(&digest::SHA256, &(seed * 64 + index).to_be_bytes()).as_ref().to_vec())
            .take(500)
            .collect();
        let tally = compare(&bytes, false).expect("agrees with the engine");
        total.compiled += tally.compiled;
        total.refused += tally.refused;
        total.permitted += tally.permitted;
        total.denied += tally.denied;
    }
    let Tally { compiled, refused, permitted, denied } = total;
    assert!(
        compiled > 50 && refused > 10 && permitted > 10 && denied > 50,
        "{compiled} {refused} {permitted} {denied}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn well_typed_checks_compile_and_agree_with_the_engine(bytes in proptest::collection::vec(any::<u8>(), 0..500)) {
        outcome(compare(&bytes, true), true)?;
    }

    #[test]
    fn whatever_compiles_agrees_with_the_engine(bytes in proptest::collection::vec(any::<u8>(), 0..500)) {
        outcome(compare(&bytes, false), false)?;
    }
}
