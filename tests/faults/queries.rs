//! Whom a name server is asked for: a query carries what an agent chose, so nobody is asked for what policy refuses.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use crate::strace::may_inject;
use crate::support::PATIENCE;
use crate::support::agent::Agent;
use crate::support::client::{clean, program, skip};
use crate::support::daemon::TestEnv;

/// `command` where a name server of nobody's is configured, with every packet that it sends written to `calls`.
fn watched(command: &Command, resolv_conf: &Path, calls: &Path) -> Command {
    const THERE: &str = r#"mount --bind "$1" /etc/resolv.conf && shift && exec "$@""#;
    let mut watched = clean(&program("unshare").unwrap());
    watched.args(["--mount", "--propagation", "private", "sh", "-c", THERE, "sh"]).arg(resolv_conf);
    watched.arg(program("strace").unwrap()).args(["-D", "-f", "-q", "-s", "256"]);
    watched.args(["-e", "trace=sendto,sendmsg,sendmmsg", "-o"]).arg(calls);
    watched.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            watched.env(name, value);
        }
    }
    watched
}

#[test]
fn nobody_is_asked_for_a_host_that_policy_refuses() {
    let test = "no query for a refused host";
    if !may_inject(test) {
        return;
    }
    if program("unshare").is_none() {
        return skip(test, "unshare is not installed");
    }
    let mut env = TestEnv::new();
    env.service("name = \"named\"\nhosts = [\"asked.named.test\", \"refused.named.test\"]");
    env.write_config();
    let holder = env.mint("holder", &["named host=asked.named.test path=/v1"]);
    let (resolv_conf, calls) = (env.file("resolv.conf"), env.file("calls"));
    std::fs::write(&resolv_conf, "nameserver 127.0.0.53\noptions timeout:1 attempts:1\n").unwrap();
    let daemon = env.start_traced(|narrows| watched(narrows, &resolv_conf, &calls));
    let agent = Agent::new(&env, &daemon, Some(&holder.presentation()));
    for (host, path, code) in [
        ("refused.named.test", "/v1/items", "capability_denied"),
        ("refused.unnamed.test", "/v1/items", "service_unknown"),
        ("refused.named.test", "/v1/%2e%2e/items", "path_ambiguous"),
    ] {
        assert_eq!(agent.get(host, path).code(), code, "{host}{path}");
    }
    let mut tunnel = agent.tunnel("refused.named.test");
    tunnel.send("GET /v1/items HTTP/1.1\r\nHost: refused.elsewhere.test\r\n\r\n");
    assert_eq!(tunnel.answer(false).code(), "misdirected");
    let (refused, _) = agent.connect("refused.named.test:2222");
    assert_eq!(refused.status(), 403, "{refused:?}");
    // The twin, which was sent after all of them: strace writes in the order of the calls.
    let answer = agent.get("asked.named.test", "/v1/items");
    assert!(matches!(&*answer.code(), "upstream_refused" | "upstream_timeout"), "{answer:?}");
    let deadline = Instant::now() + PATIENCE;
    let sent = loop {
        let sent = std::fs::read_to_string(&calls).unwrap();
        if sent.contains(r"\5asked\5named\4test") {
            break sent;
        }
        assert!(Instant::now() < deadline, "no query was seen: {sent}");
        std::thread::yield_now();
    };
    assert!(!sent.contains("refused"), "{sent}");
}
