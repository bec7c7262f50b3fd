//! Each limit at its edge: the last that passes, and one more.

use biscuit_auth::format::schema::{self, op, op_binary, op_unary, term::Content};
use narrows::capability::{
    BLOCKS_MAX, CHECKS_MAX, FACTS_MAX, HOPS_MAX, LABEL_BYTES_MAX, Limits, NESTING_MAX, OPERATIONS_MAX, PREDICATES_MAX,
    ROWS_MAX, verify,
};
use prost::Message;

use crate::forge::{ALICE, BOB, Forgery, Link, authority, content, content_after, holder, roots};

fn class_of_authority(code: &str) -> &'static str {
    Forgery::of(&content(&format!("{} {code}", authority()))).class()
}

#[test]
fn facts() {
    // Two are the profile and the holder.
    let right = |n: usize| format!(r#"right("s{n}", "read");"#);
    let rights = |count: usize| (2..count).map(right).collect::<Vec<_>>().concat();
    assert_eq!(class_of_authority(&rights(FACTS_MAX)), "accepted");
    assert_eq!(class_of_authority(&rights(FACTS_MAX + 1)), "limit");
}

#[test]
fn labels() {
    let label = |length: usize| format!(r#"user("{}");"#, "x".repeat(length));
    assert_eq!(class_of_authority(&label(LABEL_BYTES_MAX)), "accepted");
    assert_eq!(class_of_authority(&label(LABEL_BYTES_MAX + 1)), "limit");
    let agent = |length: usize| Forgery::delegation(&label(length).replace("user", "agent")).class();
    assert_eq!((agent(LABEL_BYTES_MAX), agent(LABEL_BYTES_MAX + 1)), ("accepted", "limit"));
}

#[test]
fn checks() {
    let checks = |count: usize| r#"check if operation("read");"#.repeat(count);
    assert_eq!(class_of_authority(&checks(CHECKS_MAX)), "accepted");
    assert_eq!(class_of_authority(&checks(CHECKS_MAX + 1)), "limit");
}

#[test]
fn rows() {
    let rows = |count: usize| format!("check if {};", vec![r#"operation("read")"#; count].join(" or "));
    assert_eq!(class_of_authority(&rows(ROWS_MAX)), "accepted");
    assert_eq!(class_of_authority(&rows(ROWS_MAX + 1)), "limit");
}

#[test]
fn predicates() {
    let row = |count: usize| (0..count).map(|n| format!(r#"param("p{n}", "x")"#)).collect::<Vec<_>>().join(", ");
    assert_eq!(class_of_authority(&format!("check if {};", row(PREDICATES_MAX))), "accepted");
    assert_eq!(class_of_authority(&format!("check if {};", row(PREDICATES_MAX + 1))), "limit");
}

/// A check with these operations after `path($path)`.
fn class_of_operations(operations: Vec<op::Content>) -> &'static str {
    let mut block = content(&format!("{} check if path($path), true;", authority()));
    block.checks[0].queries[0].expressions[0].ops = boxed(operations);
    Forgery::of(&block).class()
}

fn boxed(operations: Vec<op::Content>) -> Vec<schema::Op> {
    operations.into_iter().map(|content| schema::Op { content: Some(content) }).collect()
}

fn yes() -> op::Content {
    op::Content::Value(schema::Term { content: Some(Content::Bool(true)) })
}

fn binary(kind: op_binary::Kind) -> op::Content {
    op::Content::Binary(schema::OpBinary { kind: kind as i32, ffi_name: None })
}

fn negate() -> op::Content {
    op::Content::Unary(schema::OpUnary { kind: op_unary::Kind::Negate as i32, ffi_name: None })
}

fn parentheses() -> op::Content {
    op::Content::Unary(schema::OpUnary { kind: op_unary::Kind::Parens as i32, ffi_name: None })
}

#[test]
fn operations_of_a_block() {
    let padded = |count: usize| {
        let mut operations = vec![yes()];
        operations.resize(count, parentheses());
        operations
    };
    assert_eq!(class_of_operations(padded(OPERATIONS_MAX)), "accepted");
    assert_eq!(class_of_operations(padded(OPERATIONS_MAX + 1)), "limit");
    // All checks of a block count together, and closures count with what they contain.
    let halves = |first: usize, second: usize| {
        let mut block = content(&format!("{} check if path($path), true; check if path($path), true;", authority()));
        block.checks[0].queries[0].expressions[0].ops = boxed(padded(first));
        block.checks[1].queries[0].expressions[0].ops = boxed(padded(second));
        Forgery::of(&block).class()
    };
    assert_eq!(halves(OPERATIONS_MAX / 2, OPERATIONS_MAX / 2), "accepted");
    assert_eq!(halves(OPERATIONS_MAX / 2, OPERATIONS_MAX / 2 + 1), "limit");
    let lazy = |count: usize| {
        let closure = op::Content::Closure(schema::OpClosure { params: vec![], ops: boxed(padded(count)) });
        class_of_operations(vec![yes(), closure, binary(op_binary::Kind::LazyOr)])
    };
    assert_eq!(lazy(OPERATIONS_MAX - 3), "accepted");
    assert_eq!(lazy(OPERATIONS_MAX - 2), "limit");
}

#[test]
fn nesting_of_operators() {
    let negated = |depth: usize| {
        let mut operations = vec![yes()];
        operations.resize(depth + 1, negate());
        operations
    };
    assert_eq!(class_of_operations(negated(NESTING_MAX)), "accepted");
    assert_eq!(class_of_operations(negated(NESTING_MAX + 1)), "limit");
    // `a || b || c …` is one level, however long; alternating connectives are one each.
    let chain = |kinds: &[op_binary::Kind], length: usize| {
        let mut operations = vec![yes()];
        for kind in kinds.iter().copied().cycle().take(length) {
            operations.extend([yes(), binary(kind)]);
        }
        class_of_operations(operations)
    };
    assert_eq!(chain(&[op_binary::Kind::Or], 200), "accepted");
    assert_eq!(chain(&[op_binary::Kind::And, op_binary::Kind::Or], NESTING_MAX), "accepted");
    assert_eq!(chain(&[op_binary::Kind::And, op_binary::Kind::Or], NESTING_MAX + 1), "limit");
}

#[test]
fn nesting_of_closures() {
    let nested = |depth: usize| {
        let mut operations = vec![yes()];
        for level in 0..depth {
            let kind = if level % 2 == 0 { op_binary::Kind::LazyOr } else { op_binary::Kind::LazyAnd };
            let closure = op::Content::Closure(schema::OpClosure { params: vec![], ops: boxed(operations) });
            operations = vec![yes(), closure, binary(kind)];
        }
        class_of_operations(operations)
    };
    assert_eq!(nested(NESTING_MAX), "accepted");
    assert_eq!(nested(NESTING_MAX + 1), "limit");
    // Closures that are nothing but closures do not get deeper either.
    let bare = |depth: usize| {
        let mut operations = vec![yes()];
        for _ in 0..depth {
            operations = vec![op::Content::Closure(schema::OpClosure { params: vec![], ops: boxed(operations) })];
        }
        class_of_operations(operations)
    };
    assert_eq!(bare(NESTING_MAX), "check");
    assert_eq!(bare(NESTING_MAX + 1), "limit");
}

#[test]
fn blocks() {
    let with_blocks = |count: usize| {
        let first = content(&authority());
        let mut forgery = Forgery::of(&first);
        for n in 1..count {
            forgery.links.push(Link::new(&content_after(&[&first], ""), None, 100 + u8::try_from(n).expect("few")));
        }
        forgery
    };
    assert_eq!(with_blocks(BLOCKS_MAX).class(), "accepted");
    assert_eq!(with_blocks(BLOCKS_MAX + 1).class(), "too_many_blocks");
}

#[test]
fn hops() {
    let with_hops = |count: u32| {
        let mut forgery = Forgery::of(&content(&authority()));
        for hop in 0..count {
            let (from, to) = if hop % 2 == 0 { (ALICE, BOB) } else { (BOB, ALICE) };
            forgery = forgery.delegate(from, &holder(to));
        }
        forgery
    };
    assert_eq!(with_hops(HOPS_MAX).class(), "accepted");
    assert_eq!(with_hops(HOPS_MAX + 1).class(), "hops");
    // The verifier chooses; no block can.
    let verdict = |hops, hops_max| verify(&with_hops(hops).capability(), &roots(), &Limits { hops_max }).is_ok();
    assert!(verdict(12, 12) && !verdict(12, 11) && verdict(0, 0) && !verdict(1, 0));
}

#[test]
fn bytes() {
    let padded = |padding: usize| {
        let mut block = content(&authority());
        block.symbols.push("x".repeat(padding));
        Forgery::of(&block)
    };
    let overhead = padded(16_000).schema().encoded_len() - 16_000;
    let fits = narrows::capability::CAPABILITY_BYTES_MAX - overhead;
    assert_eq!(padded(fits).class(), "accepted");
    assert_eq!(crate::forge::class_of_bytes(&padded(fits + 1).schema().encode_to_vec()), "too_large");
}
