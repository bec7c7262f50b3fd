//! Vendors' SDKs as their users call them, against a stand-in dialled in place of the vendor's host. No key is given in
//! code: the SDK reads the placeholder that the carrier set.

use std::path::Path;
use std::process::Command;

use crate::support::ca::Alpn;
use crate::support::client::{node, python, run, skip};
use crate::support::origin::Origin;
use crate::{CARRIERS, MARKER, SECRET, World, script};

fn stand_in(origin: &Origin) {
    let completion = format!(
        r#"{{"id":"1","object":"chat.completion","created":1,"model":"gpt-test","choices":[{{"index":0,
            "finish_reason":"stop","message":{{"role":"assistant","content":"{MARKER}"}}}}]}}"#
    );
    origin.put("/v1/chat/completions", "application/json", completion);
    let message = format!(
        r#"{{"id":"1","type":"message","role":"assistant","model":"claude-test","content":[{{"type":"text",
            "text":"{MARKER}"}}],"stop_reason":"end_turn","stop_sequence":null,
            "usage":{{"input_tokens":1,"output_tokens":1}}}}"#
    );
    origin.put("/v1/messages", "application/json", message);
}

/// One call that the capability allows, then one that it does not: the SDK shows the denial's message.
fn check(service: &str, host: &str, path: &str, header: (&str, &str), program: &Path, prepare: impl Fn(&mut Command)) {
    let world = World::with(Alpn::Both, &[&format!("{service} path={path}")], |env, origin| {
        stand_in(origin);
        env.catalogue(service, SECRET);
        env.dial(host, origin);
    });
    for carrier in CARRIERS {
        let before = world.origin.seen().len();
        let mut command = world.under(carrier, program);
        prepare(&mut command);
        run(&mut command, b"").says(MARKER).says("403").says("capability_denied").says("capctl").never_says(SECRET);
        let seen = &world.origin.seen()[before..];
        assert_eq!(seen.len(), 1, "only what is allowed reaches the vendor: {seen:#?}");
        assert_eq!(seen[0].path, path);
        assert_eq!(seen[0].header(header.0), Some(header.1));
    }
}

#[test]
fn openai_python() {
    let Some(python) = python("openai") else { return skip("openai_python", "no Python with openai") };
    let bearer = format!("Bearer {SECRET}");
    check("openai", "api.openai.com", "/v1/chat/completions", ("authorization", &bearer), &python, |command| {
        command.arg(script("python/openai_client.py"));
    });
}

#[test]
fn anthropic_python() {
    let Some(python) = python("anthropic") else { return skip("anthropic_python", "no Python with anthropic") };
    check("anthropic", "api.anthropic.com", "/v1/messages", ("x-api-key", SECRET), &python, |command| {
        command.arg(script("python/anthropic_client.py"));
    });
}

#[test]
fn openai_node() {
    let (Some((node, modules)), Some(_)) = (node("openai"), node("undici")) else {
        return skip("openai_node", "no node with openai and undici");
    };
    let bearer = format!("Bearer {SECRET}");
    check("openai", "api.openai.com", "/v1/chat/completions", ("authorization", &bearer), &node, |command| {
        command.env("NODE_PATH", &modules).arg(script("node/openai_client.cjs"));
    });
}
