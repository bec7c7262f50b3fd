//! `narrows`: the proxy, in the foreground.

fn main() {}
