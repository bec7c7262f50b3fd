//! A capability for people: who gave what to whom, and what each took away.
//!
//! Everything that a capability's writers chose (labels, services, values) is shown as a quoted string in which quotes,
//! control characters and Unicode format characters, bidirectional overrides among them, are escaped: no label can forge
//! a line. The JSON form carries labels as they are; it is data.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{Block, BlockKind, Chain, PublicKey, Right};
use crate::clock::UnixSeconds;

/// The chain as an indented tree, one line for each statement, ending in a newline. With `now`, it says whether the
/// capability has expired.
#[must_use]
pub fn tree(chain: &Chain, now: Option<UnixSeconds>) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{}", headline(chain));
    let _ = writeln!(out, "{}", summary(chain, now));
    let mut hops = chain.holders().iter().peekable();
    let mut depth = 0;
    for (at, block) in chain.blocks().iter().enumerate() {
        let hop = hops.next_if(|hop| hop.block == block.id());
        if at > 0 && hop.is_some() {
            depth += 1;
        }
        let indent = "  ".repeat(depth);
        let id = short_id(block);
        let _ = match (block.kind(), hop) {
            (BlockKind::Authority, Some(hop)) => {
                writeln!(out, "{indent}#{at} issued by the root to {}  id {id}", short(&hop.holder))
            }
            (BlockKind::Delegation, Some(hop)) => {
                let by = block.set_by().map(short).unwrap_or_default();
                writeln!(out, "{indent}#{at} delegated by {by} to {}  id {id}", short(&hop.holder))
            }
            _ => {
                let by = block.set_by().map(short).unwrap_or_default();
                writeln!(out, "{indent}#{at} narrowed by {by}  id {id}")
            }
        };
        for statement in statements(chain, at, block, hop.and_then(|hop| hop.name.as_deref())) {
            let _ = writeln!(out, "{indent}   {statement}");
        }
    }
    out
}

/// The same as JSON. Its members are stable.
#[must_use]
pub fn json(chain: &Chain) -> Value {
    let mut hops = chain.holders().iter().peekable();
    let blocks: Vec<Value> = chain
        .blocks()
        .iter()
        .enumerate()
        .map(|(at, block)| {
            let hop = hops.next_if(|hop| hop.block == block.id());
            json!({
                "index": at,
                "id": block.id().to_string(),
                "kind": kind_name(block.kind()),
                "set_by": block.set_by().map(ToString::to_string),
                "holder": hop.map(|hop| hop.holder.to_string()),
                "name": hop.and_then(|hop| hop.name.as_deref()),
                "caveats": block.caveats().iter().map(ToString::to_string).collect::<Vec<_>>(),
                "budgets": block.budgets().iter().map(|b| json!({ "kind": b.kind.as_str(), "limit": b.limit })).collect::<Vec<_>>(),
                "rates": block.rates().iter().map(|r| json!({ "limit": r.limit, "window_s": r.window_s })).collect::<Vec<_>>(),
            })
        })
        .collect();
    json!({
        "capability": hex::encode(chain.hash()),
        "kid": chain.kid(),
        "sealed": chain.is_sealed(),
        "user": chain.user(),
        "holder": chain.holder().to_string(),
        "hop": chain.hop(),
        "hops_left": hops_left(chain),
        "expires": chain.expires_at().map(|moment| moment.to_string()),
        "rights": chain.rights().iter().map(right_json).collect::<Vec<_>>(),
        "blocks": blocks,
    })
}

fn headline(chain: &Chain) -> String {
    let hash = hex::encode(chain.hash().get(..8).unwrap_or_default());
    let sealed = if chain.is_sealed() { "sealed" } else { "unsealed" };
    let (blocks, hops) = (chain.blocks().len(), chain.hop());
    format!("capability {hash}  root key {}  {}, {}, {sealed}", chain.kid(), many(blocks, "block"), many(hops, "hop"))
}

/// What holds for the whole: the earliest end, the changes of holder that are left, and every budget on the way.
fn summary(chain: &Chain, now: Option<UnixSeconds>) -> String {
    let end = match (chain.expires_at(), now) {
        (None, _) => "never expires".to_owned(),
        (Some(end), Some(now)) if end <= now => format!("expired {end}"),
        (Some(end), _) => format!("expires {end}"),
    };
    let hops = match hops_left(chain) {
        Some(left) => format!("{} left", many(left, "hop")),
        None => "no limit of hops but the proxy's".to_owned(),
    };
    let mut parts = vec![end, hops];
    for (at, block) in chain.blocks().iter().enumerate() {
        parts.extend(allowances(block).into_iter().map(|text| format!("{text} (#{at})")));
    }
    parts.join("; ")
}

/// Changes of holder that the caveats still allow, where they say so plainly.
fn hops_left(chain: &Chain) -> Option<u32> {
    let caveats = chain.blocks().iter().flat_map(Block::caveats);
    let most = caveats.filter_map(super::Caveat::hops_max).min()?;
    Some(most.saturating_sub(chain.hop()))
}

fn statements(chain: &Chain, at: usize, block: &Block, name: Option<&str>) -> Vec<String> {
    let mut lines = Vec::new();
    if at == 0 {
        lines.extend(chain.user().map(|user| format!(". user {user:?}")));
        lines.extend(chain.rights().iter().map(|right| format!("+ {}", right_text(right))));
    }
    lines.extend(name.map(|name| format!(". agent {name:?}")));
    lines.extend(block.caveats().iter().map(|caveat| format!("- {caveat}")));
    lines.extend(allowances(block).into_iter().map(|text| format!("- {text}")));
    lines
}

fn allowances(block: &Block) -> Vec<String> {
    let budgets = block.budgets().iter().map(|budget| format!("budget {} {}", budget.kind.as_str(), budget.limit));
    let rates = block.rates().iter().map(|rate| format!("rate {} calls in {} s", rate.limit, rate.window_s));
    budgets.chain(rates).collect()
}

fn right_text(right: &Right) -> String {
    match &right.operation {
        Some(operation) => format!("{:?} {operation:?}", right.service),
        None => format!("{:?} any operation", right.service),
    }
}

fn right_json(right: &Right) -> Value {
    json!({ "service": &*right.service, "operation": right.operation.as_deref().unwrap_or("*") })
}

const fn kind_name(kind: BlockKind) -> &'static str {
    match kind {
        BlockKind::Authority => "authority",
        BlockKind::Delegation => "delegation",
        BlockKind::Narrowing => "narrowing",
    }
}

fn short(key: &PublicKey) -> String {
    format!("{}:{}", key.algorithm().name(), key.short_name())
}

fn short_id(block: &Block) -> String {
    block.id().to_string().chars().take(12).collect()
}

fn many(number: impl TryInto<u64>, noun: &str) -> String {
    let number = number.try_into().unwrap_or(u64::MAX);
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{ALICE, NOW, ORCHESTRATOR, authority, delegated, key, minted, verify_ok};
    use super::super::{Budget, BudgetKind, NarrowingBlock, Rate, expires_at, narrow};
    use super::*;

    fn example() -> Chain {
        let block = authority(
            &[&expires_at(NOW + 3600), "check if hop($hop), $hop <= 3"],
            &[Budget { kind: BudgetKind::Calls, limit: 100 }],
            &[Rate { limit: 10, window_s: 60 }],
        );
        let delegated =
            delegated(&minted(&block), ALICE, ORCHESTRATOR, &["check if service(\"acme\"), operation(\"read\")"], &[]);
        let narrowing = NarrowingBlock { caveats: vec![expires_at(NOW + 60)], ..NarrowingBlock::default() };
        let narrowed = narrow(&delegated, &narrowing, [9; 32]).expect("narrows");
        verify_ok(&narrowed).chain().clone()
    }

    #[test]
    fn the_tree_shows_who_set_what() {
        let chain = example();
        let ids: Vec<String> = chain.blocks().iter().map(short_id).collect();
        let (alice, orchestrator) = (short(key(ALICE).public()), short(key(ORCHESTRATOR).public()));
        let expected = format!(
            "capability {hash}  root key 1  3 blocks, 1 hop, unsealed\n\
             expires 2027-01-15T08:01:00Z; 2 hops left; budget calls 100 (#0); rate 10 calls in 60 s (#0)\n\
             #0 issued by the root to {alice}  id {a}\n   \
                . user \"alice@example.com\"\n   \
                + \"github\" \"read\"\n   \
                + \"acme\" any operation\n   \
                - time < 2027-01-15T09:00:00Z\n   \
                - hop <= 3\n   \
                - budget calls 100\n   \
                - rate 10 calls in 60 s\n  \
               #1 delegated by {alice} to {orchestrator}  id {b}\n     \
                  . agent \"agent-3\"\n     \
                  - service = \"acme\", operation = \"read\"\n  \
               #2 narrowed by {orchestrator}  id {c}\n     \
                  - time < 2027-01-15T08:01:00Z\n",
            hash = hex::encode(&chain.hash()[..8]),
            a = ids[0],
            b = ids[1],
            c = ids[2],
        );
        assert_eq!(tree(&chain, Some(NOW)), expected);
        assert!(tree(&chain, Some(NOW + 60)).contains("\nexpired 2027-01-15T08:01:00Z;"));
        assert!(tree(&chain, None).contains("\nexpires 2027-01-15T08:01:00Z;"));
    }

    #[test]
    fn json_says_the_same() {
        let chain = example();
        let value = json(&chain);
        assert_eq!(value["capability"], hex::encode(chain.hash()));
        assert_eq!((&value["hop"], &value["hops_left"]), (&json!(1), &json!(2)));
        assert_eq!(value["expires"], "2027-01-15T08:01:00Z");
        assert_eq!(value["rights"][1], json!({ "service": "acme", "operation": "*" }));
        assert_eq!(value["blocks"][1]["name"], "agent-3");
        assert_eq!(value["blocks"][1]["holder"], key(ORCHESTRATOR).public().to_string());
        assert_eq!(value["blocks"][2]["kind"], "narrowing");
        assert_eq!(value["blocks"][2]["holder"], Value::Null);
        assert_eq!(value["blocks"][0]["budgets"], json!([{ "kind": "calls", "limit": 100 }]));
    }

    #[test]
    fn no_label_or_value_can_forge_a_line() {
        let hostile = "x\"\n#9 issued by the root\u{202e}\u{1b}[2J";
        let mut block = authority(&[], &[], &[]);
        block.user = Some(hostile.to_owned());
        block.rights.push((hostile.to_owned(), hostile.to_owned()));
        block.caveats.push("check if param(\"a\\n#9\", \"b\\n#9\u{202e}\")".to_owned());
        let shown = tree(&verify_ok(&minted(&block)), None);
        assert!(!shown.chars().any(|c| (c.is_control() && c != '\n') || c == '\u{202e}'), "{shown}");
        assert!(!shown.lines().any(|line| line.trim_start().starts_with("#9")), "{shown}");
    }
}
