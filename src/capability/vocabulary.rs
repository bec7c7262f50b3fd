//! The closed vocabulary: which facts each kind of block may, must and must not have.
//!
//! What is not listed here is refused, whatever it would mean to a Datalog engine: another name, arity or type, a rule,
//! a scope, a context. In particular no block can state a fact of the request, and rights are the root's alone.

use std::sync::Arc;

use biscuit_auth::format::convert::proto_block_to_token_block;
use biscuit_auth::format::schema::{self, term::Content};

use super::caveat::{Caveat, Compiler};
use super::container::decode_canonical;
use super::symbols::Symbols;
use super::{Algorithm, Budget, BudgetKind, InvalidCapability, PublicKey, Rate};

/// The Datalog version of the first third-party blocks, as a payload writes it.
const DATALOG_3_2: u32 = 5;
/// A block has at most this many facts.
pub const FACTS_MAX: usize = 64;
/// A block has at most this many checks.
pub const CHECKS_MAX: usize = 32;
/// A `user` or `agent` has at most this many bytes: it is in every line of the journal.
pub const LABEL_BYTES_MAX: usize = 256;

/// What a block is, by who signed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BlockKind {
    /// Block 0, signed by the root: names the first holder and grants every right.
    Authority,
    /// Signed by the holder before as well; names the next holder.
    Delegation,
    /// Signed by a chain key alone; only takes away.
    Narrowing,
}

/// A block's payload, read: the facts by name, the checks compiled.
#[derive(Debug, Default)]
pub(super) struct Statements {
    pub(super) holder: Option<PublicKey>,
    /// `user` or `agent`.
    pub(super) label: Option<Arc<str>>,
    pub(super) rights: Vec<Right>,
    pub(super) budgets: Vec<Budget>,
    pub(super) rates: Vec<Rate>,
    pub(super) caveats: Vec<Caveat>,
    profile: bool,
}

/// `right(service, operation)`: what the root allows at most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Right {
    /// The service's name.
    pub service: Arc<str>,
    /// One operation, or `None` for `"*"`: all of them.
    pub operation: Option<Arc<str>>,
}

impl Statements {
    /// Reads the payload of a block of this kind. `symbols` is the table that the block continues, and is extended.
    pub(super) fn read(kind: BlockKind, payload: &[u8], symbols: &mut Symbols) -> Result<Self, InvalidCapability> {
        let (mut statements, block) = Self::read_facts(kind, payload, symbols)?;
        statements.caveats = Compiler::new(symbols).checks(&block.checks)?;
        check_version(kind, &block)?;
        Ok(statements)
    }

    /// Reads the facts alone, and leaves the checks to whoever believes the block's signatures.
    pub(super) fn read_facts(
        kind: BlockKind,
        payload: &[u8],
        symbols: &mut Symbols,
    ) -> Result<(Self, schema::Block), InvalidCapability> {
        let block = decode_canonical::<schema::Block>(payload)?;
        check_shape(&block)?;
        symbols.extend(&block.symbols)?;
        let mut statements = Self::default();
        for fact in &block.facts {
            statements.add(kind, fact, symbols)?;
        }
        statements.check_complete(kind)?;
        Ok((statements, block))
    }

    fn add(&mut self, kind: BlockKind, fact: &schema::Fact, symbols: &Symbols) -> Result<(), InvalidCapability> {
        let terms: Vec<&Content> = fact.predicate.terms.iter().filter_map(|term| term.content.as_ref()).collect();
        if terms.len() != fact.predicate.terms.len() {
            return Err(InvalidCapability::Fact);
        }
        match (symbols.name(fact.predicate.name)?, kind, terms.as_slice()) {
            ("cap", BlockKind::Authority, [Content::Integer(version), Content::Null(_)]) => {
                if *version != 1 {
                    return Err(InvalidCapability::Profile);
                }
                once(std::mem::replace(&mut self.profile, true))
            }
            (
                "holder",
                BlockKind::Authority | BlockKind::Delegation,
                [Content::Integer(algorithm), Content::Bytes(key)],
            ) => {
                let algorithm = u8::try_from(*algorithm).ok().and_then(Algorithm::from_wire);
                let key = algorithm.and_then(|algorithm| PublicKey::from_bytes(algorithm, key).ok());
                let before = self.holder.replace(key.ok_or(InvalidCapability::Holder)?);
                if before.is_some() { Err(InvalidCapability::Holder) } else { Ok(()) }
            }
            ("user", BlockKind::Authority, [Content::String(label)])
            | ("agent", BlockKind::Delegation, [Content::String(label)]) => {
                let label = symbols.text(*label)?;
                if label.len() > LABEL_BYTES_MAX {
                    return Err(InvalidCapability::Limit);
                }
                once(self.label.replace(label).is_some())
            }
            ("right", BlockKind::Authority, [Content::String(service), Content::String(operation)]) => {
                self.add_right(symbols.text(*service)?, symbols.text(*operation)?)
            }
            ("budget", _, [Content::String(kind), Content::Integer(limit)]) => {
                let kind = BudgetKind::from_name(symbols.name(*kind)?).ok_or(InvalidCapability::Fact)?;
                let limit = u64::try_from(*limit).map_err(|_| InvalidCapability::Fact)?;
                let repeated = self.budgets.iter().any(|budget| budget.kind == kind);
                self.budgets.push(Budget { kind, limit });
                once(repeated)
            }
            ("rate", _, [Content::String(kind), Content::Integer(limit), Content::Integer(window)]) => {
                let limit = u64::try_from(*limit).map_err(|_| InvalidCapability::Fact)?;
                let window_s = u64::try_from(*window).map_err(|_| InvalidCapability::Fact)?;
                if symbols.name(*kind)? != BudgetKind::Calls.as_str() || window_s == 0 {
                    return Err(InvalidCapability::Fact);
                }
                let repeated = !self.rates.is_empty();
                self.rates.push(Rate { limit, window_s });
                once(repeated)
            }
            _ => Err(InvalidCapability::Fact),
        }
    }

    fn add_right(&mut self, service: Arc<str>, operation: Arc<str>) -> Result<(), InvalidCapability> {
        if &*service == "*" {
            return Err(InvalidCapability::Fact);
        }
        let operation = if &*operation == "*" { None } else { Some(operation) };
        self.rights.push(Right { service, operation });
        Ok(())
    }

    fn check_complete(&self, kind: BlockKind) -> Result<(), InvalidCapability> {
        if kind == BlockKind::Authority && !self.profile {
            return Err(InvalidCapability::Profile);
        }
        if kind != BlockKind::Narrowing && self.holder.is_none() {
            return Err(InvalidCapability::Holder);
        }
        Ok(())
    }
}

/// What is refused whatever it contains, and the numbers of facts and checks.
fn check_shape(block: &schema::Block) -> Result<(), InvalidCapability> {
    if block.context.is_some() {
        return Err(InvalidCapability::Context);
    }
    if !block.rules.is_empty() {
        return Err(InvalidCapability::Rule);
    }
    // A table of public keys serves scopes alone.
    if !block.scope.is_empty() || !block.public_keys.is_empty() {
        return Err(InvalidCapability::Scope);
    }
    if block.facts.len() > FACTS_MAX || block.checks.len() > CHECKS_MAX {
        return Err(InvalidCapability::Limit);
    }
    Ok(())
}

/// The block must load in the biscuit library too, which compares its version with the features that it uses. All that
/// the library could complain of besides has been refused before. Version 5 is the first for third-party blocks.
fn check_version(kind: BlockKind, block: &schema::Block) -> Result<(), InvalidCapability> {
    let too_old = kind == BlockKind::Delegation && block.version.is_none_or(|version| version < DATALOG_3_2);
    if too_old || proto_block_to_token_block(block, None).is_err() {
        return Err(InvalidCapability::DatalogVersion);
    }
    Ok(())
}

fn once(seen_before: bool) -> Result<(), InvalidCapability> {
    if seen_before { Err(InvalidCapability::Fact) } else { Ok(()) }
}
