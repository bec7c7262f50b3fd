//! `capctl` killed while it changes the home: what was, or what was to be, and never a part of it.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use narrows::capability::Revocations;
use narrows::config::Config;
use narrows::store::{Home, SecretStore, revoked};

use crate::is_long;
use crate::kill::Dice;
use crate::support::client::run;
use crate::support::daemon::TestEnv;

fn rounds() -> usize {
    if is_long() { 100 } else { 12 }
}

/// Starts a command and kills it within so many microseconds; true when it had ended well before.
fn killed(mut command: Command, input: &str, within_us: u64, dice: &mut Dice) -> bool {
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let until = Instant::now() + Duration::from_micros(dice.roll(within_us));
    while Instant::now() < until {
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap().success()
}

/// Twice as long as the command takes undisturbed: the dice then fall on all of it.
fn span_us(mut command: Command, input: &str) -> u64 {
    let began = Instant::now();
    run(&mut command, input.as_bytes()).succeeded();
    u64::try_from(began.elapsed().as_micros()).unwrap() * 2
}

#[test]
fn a_kill_while_the_home_is_changed_leaves_the_old_or_the_new() {
    let env = TestEnv::by_capctl();
    let home = Home::at(&env.home()).unwrap();
    let capctl = |arguments: &[&str]| {
        let mut command = env.command();
        command.args(arguments);
        command
    };
    let mut dice = Dice::new();
    let secret = || {
        let opened = SecretStore::new(&home).get(&"key".parse().unwrap()).unwrap().unwrap();
        String::from_utf8(opened.expose().to_vec()).unwrap()
    };
    let span = span_us(capctl(&["secret", "set", "key"]), "secret-value-0-0123456789");
    let (mut changed, mut kept) = (0, 0);
    for round in 1..=rounds() {
        let (old, new) = (secret(), format!("secret-value-{round}-0123456789"));
        let ended = killed(capctl(&["secret", "set", "key"]), &new, span, &mut dice);
        let now = secret();
        assert!(now == new || (now == old && !ended), "neither the old nor the new secret");
        if now == new { changed += 1 } else { kept += 1 }
    }

    let names = || {
        let config = Config::load(&home).unwrap_or_else(|problems| panic!("{problems:#?}"));
        config.services.services().iter().map(|service| service.name().to_owned()).collect::<Vec<_>>()
    };
    let span = span_us(capctl(&["service", "add", "first", "--host", "first.acme.test"]), "");
    for round in 0..rounds() {
        let (before, name) = (names(), format!("service-{round}"));
        let host = format!("{name}.acme.test");
        let ended = killed(capctl(&["service", "add", &name, "--host", &host]), "", span, &mut dice);
        let now = names();
        assert!(now.len() == before.len() + 1 || (now == before && !ended), "{before:?} became {now:?}");
    }

    let revoked = || revoked::load(&home.revoked()).unwrap();
    let span = span_us(capctl(&["revoke", "--block-id", &"0f".repeat(32)]), "");
    for round in 0..rounds() {
        let (before, id) = (revoked(), hex::encode([u8::try_from(round).unwrap() | 0x80; 32]));
        let ended = killed(capctl(&["revoke", "--block-id", &id]), "", span, &mut dice);
        let now = revoked();
        Revocations::parse(now.iter().map(String::as_str)).unwrap();
        assert!(now.starts_with(&before), "an older revocation is gone");
        assert!(now.len() == before.len() + 1 || (now.len() == before.len() && !ended), "{before:?} became {now:?}");
    }
    run(&mut capctl(&["secret", "list"]), b"").succeeded();
    eprintln!("of {} secrets {changed} were changed and {kept} kept", rounds());
}

#[test]
fn an_init_that_was_killed_is_completed_by_the_next() {
    let mut dice = Dice::new();
    let whole = TestEnv::by_capctl();
    drop(whole);
    for _ in 0..rounds() / 3 {
        let env = TestEnv::bare();
        let mut init = env.command();
        init.arg("init");
        killed(init, "", 60_000, &mut dice);
        env.capctl(&["init"]).succeeded();
        let mut check = env.narrows(&[]);
        run(check.arg("--check"), b"").succeeded();
    }
}

#[test]
fn an_init_that_was_killed_between_the_two_files_of_the_ca_is_completed() {
    let env = TestEnv::by_capctl();
    let key = std::fs::read(env.home().join("ca.key")).unwrap();
    std::fs::remove_file(env.home().join("ca.pem")).unwrap();
    env.capctl(&["init"]).succeeded();
    assert_eq!(std::fs::read(env.home().join("ca.key")).unwrap(), key);
    run(env.narrows(&[]).arg("--check"), b"").succeeded();
    env.start_as_written().stop();
}

#[test]
fn what_a_killed_write_left_beside_its_place_is_swept() {
    let env = TestEnv::by_capctl();
    let (old, new) = (env.home().join(".narrows-AbCdEf"), env.home().join(".narrows-GhIjKl"));
    for path in [&old, &new] {
        std::fs::write(path, "half a file").unwrap();
    }
    let file = std::fs::File::options().write(true).open(&old).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_hours(2)).unwrap();
    env.secret_by_capctl("key", "secret-value-0123456789");
    // One that somebody may still be writing stays.
    assert!(!old.exists() && new.exists());
}
