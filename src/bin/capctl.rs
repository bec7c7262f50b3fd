//! `capctl`: everything a person types.

fn main() {}
