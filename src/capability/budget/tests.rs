use std::sync::atomic::AtomicUsize;

use proptest::prelude::*;

use super::super::mint;
use super::super::testing::{ALICE, NOW, ORCHESTRATOR, ROOT, WORKER, authority, delegated, key, minted, verify_ok};
use super::*;
use crate::capability::{Budget, Capability};

fn calls(limit: u64) -> Budget {
    Budget { kind: BudgetKind::Calls, limit }
}

fn up(limit: u64) -> Budget {
    Budget { kind: BudgetKind::BytesUp, limit }
}

fn down(limit: u64) -> Budget {
    Budget { kind: BudgetKind::BytesDown, limit }
}

fn with(budgets: &[Budget], rates: &[Rate]) -> Verified {
    verify_ok(&minted(&authority(&[], budgets, rates)))
}

fn account(ledger: &Ledger, capability: &Capability) -> Account {
    ledger.account(&verify_ok(capability), NOW)
}

fn exhausted(block: usize, kind: BudgetKind, limit: u64) -> BudgetError {
    BudgetError::Exhausted { block, kind, limit }
}

#[test]
fn a_limit_is_exact_and_zero_allows_none() {
    for limit in [0, 1, 3] {
        let account = Ledger::new().account(&with(&[calls(limit)], &[]), NOW);
        for _ in 0..limit {
            drop(account.reserve(Some(0), NOW).expect("within the limit"));
        }
        assert_eq!(account.reserve(Some(0), NOW).err(), Some(exhausted(0, BudgetKind::Calls, limit)));
    }
}

#[test]
fn subtrees_share_what_their_common_block_has_left() {
    let ledger = Ledger::new();
    let parent = minted(&authority(&[], &[calls(5)], &[]));
    let left = delegated(&parent, ALICE, ORCHESTRATOR, &[], &[calls(3)]);
    let right = delegated(&parent, ALICE, WORKER, &[], &[calls(4)]);
    let (left, right) = (account(&ledger, &left), account(&ledger, &right));
    for _ in 0..3 {
        drop(left.reserve(Some(0), NOW).expect("within both limits"));
    }
    assert_eq!(left.reserve(Some(0), NOW).err(), Some(exhausted(1, BudgetKind::Calls, 3)));
    for _ in 0..2 {
        drop(right.reserve(Some(0), NOW).expect("two of five are left"));
    }
    assert_eq!(right.reserve(Some(0), NOW).err(), Some(exhausted(0, BudgetKind::Calls, 5)));
}

#[test]
fn attaching_the_same_delegation_again_does_not_refill_it() {
    let ledger = Ledger::new();
    let parent = minted(&authority(&[], &[], &[]));
    let once = delegated(&parent, ALICE, ORCHESTRATOR, &[], &[calls(1)]);
    // Sealed and unsealed, and below the same holder with another agent: other bytes, the same block.
    let sealed = once.seal().expect("seals");
    drop(account(&ledger, &once).reserve(Some(0), NOW).expect("the first"));
    assert_eq!(account(&ledger, &sealed).reserve(Some(0), NOW).err(), Some(exhausted(1, BudgetKind::Calls, 1)));
}

#[test]
fn a_refusal_takes_nothing_from_blocks_that_had_room() {
    let ledger = Ledger::new();
    let parent = minted(&authority(&[], &[calls(2), up(100)], &[Rate { limit: 2, window_s: 60 }]));
    let spent = account(&ledger, &delegated(&parent, ALICE, ORCHESTRATOR, &[], &[calls(0)]));
    let other = account(&ledger, &parent);
    for _ in 0..10 {
        assert_eq!(spent.reserve(Some(10), NOW).err(), Some(exhausted(1, BudgetKind::Calls, 0)));
    }
    drop(other.reserve(Some(50), NOW).expect("untouched"));
    drop(other.reserve(Some(50), NOW).expect("untouched"));
}

#[test]
fn rates_are_fixed_windows() {
    let rate = Rate { limit: 2, window_s: 60 };
    let account = Ledger::new().account(&with(&[], &[rate]), NOW);
    let start = UnixSeconds(NOW.get() / 60 * 60);
    assert!(account.reserve(Some(0), start).is_ok());
    assert!(account.reserve(Some(0), start + 59).is_ok());
    let refused = |retry_after_s| Some(BudgetError::RateLimited { block: 0, rate, retry_after_s });
    assert_eq!(account.reserve(Some(0), start + 59).err(), refused(1));
    assert_eq!(account.reserve(Some(0), start).err(), refused(60));
    assert!(account.reserve(Some(0), start + 60).is_ok());
    assert!(account.reserve(Some(0), start + 60).is_ok());
    // The clock is set back: the latest window counts.
    assert_eq!(account.reserve(Some(0), start).err(), refused(120));
}

#[test]
fn a_budget_refuses_before_a_rate() {
    let account = Ledger::new().account(&with(&[calls(0)], &[Rate { limit: 0, window_s: 60 }]), NOW);
    assert_eq!(account.reserve(Some(0), NOW).err(), Some(exhausted(0, BudgetKind::Calls, 0)));
}

#[test]
fn announced_bytes_are_reserved_and_the_rest_is_given_back() {
    let account = Ledger::new().account(&with(&[up(100)], &[]), NOW);
    let first = account.reserve(Some(80), NOW).expect("room");
    assert_eq!(account.reserve(Some(21), NOW).err(), Some(exhausted(0, BudgetKind::BytesUp, 100)));
    assert!(first.add_up(30));
    drop(first);
    let second = account.reserve(Some(70), NOW).expect("50 were given back");
    assert!(second.add_up(70));
    assert!(!second.add_up(1), "nothing is left beyond what was announced");
    drop(second);
    assert!(account.reserve(Some(0), NOW).is_ok(), "an empty body needs no room");
    assert_eq!(account.reserve(None, NOW).err(), Some(exhausted(0, BudgetKind::BytesUp, 100)));
}

#[test]
fn a_body_of_unknown_size_is_metered_as_it_flows() {
    let account = Ledger::new().account(&with(&[up(100), down(50)], &[]), NOW);
    let reservation = account.reserve(None, NOW).expect("room");
    assert!(reservation.add_up(60) && reservation.add_up(40));
    assert!(!reservation.add_up(1));
    assert!(reservation.add_down(50));
    assert!(!reservation.add_down(1));
    assert!(reservation.add_down(0));
    drop(reservation);
    assert_eq!(account.reserve(Some(0), NOW).err(), Some(exhausted(0, BudgetKind::BytesDown, 50)));
}

#[test]
fn an_announcement_that_was_too_small_pays_for_the_rest() {
    let account = Ledger::new().account(&with(&[up(100)], &[]), NOW);
    let reservation = account.reserve(Some(10), NOW).expect("room");
    assert!(reservation.add_up(8) && reservation.add_up(8) && reservation.add_up(84));
    assert!(!reservation.add_up(1));
}

#[test]
fn the_call_stays_counted_and_sent_bytes_too() {
    let account = Ledger::new().account(&with(&[calls(2), up(100)], &[]), NOW);
    let broken_off = account.reserve(Some(90), NOW).expect("room");
    assert!(broken_off.add_up(40));
    drop(broken_off);
    assert_eq!(account.reserve(Some(61), NOW).err(), Some(exhausted(0, BudgetKind::BytesUp, 100)));
    assert!(account.reserve(Some(60), NOW).is_ok());
    assert_eq!(account.reserve(Some(0), NOW).err(), Some(exhausted(0, BudgetKind::Calls, 2)));
}

#[test]
fn a_tree_with_too_many_counted_blocks_is_refused_alone() {
    let ledger = Ledger::with_bounds(2, 100);
    let parent = minted(&authority(&[], &[calls(9)], &[]));
    let children: Vec<Account> =
        [ORCHESTRATOR, WORKER].map(|to| account(&ledger, &delegated(&parent, ALICE, to, &[], &[calls(9)]))).into();
    assert!(children[0].reserve(Some(0), NOW).is_ok());
    assert_eq!(children[1].reserve(Some(0), NOW).err(), Some(BudgetError::TooManyBlocks));
    assert!(account(&ledger, &parent).reserve(Some(0), NOW).is_ok(), "blocks that have counters go on");
    let uncounted = minted(&authority(&["check if hop($hop), $hop <= 7"], &[], &[]));
    assert!(account(&ledger, &uncounted).reserve(Some(0), NOW).is_ok());
}

#[test]
fn the_whole_is_bounded_and_makes_room_once_blocks_are_dead() {
    let ledger = Ledger::with_bounds(10, 2);
    let tree = |seed: u8| {
        let block = authority(&[&super::super::expires_at(NOW + 60)], &[calls(9)], &[]);
        verify_ok(&mint(&key(ROOT), 1, &block, [seed; 32]).expect("mints"))
    };
    let reserve = |seed, now| ledger.account(&tree(seed), now).reserve(Some(0), now).map(drop);
    assert_eq!([reserve(1, NOW), reserve(2, NOW)], [Ok(()), Ok(())]);
    assert_eq!(reserve(3, NOW), Err(BudgetError::TooManyBlocks));
    assert_eq!(reserve(1, NOW), Ok(()), "what is counted goes on");
    assert_eq!(reserve(3, NOW + 60 + GRACE_S), Ok(()));
    assert_eq!(reserve(4, NOW + 60 + GRACE_S), Ok(()), "both dead trees made room");
}

#[test]
fn counters_are_forgotten_only_when_no_capability_with_their_block_can_be_valid() {
    let ledger = Ledger::with_bounds(2, 100);
    let expiry = super::super::expires_at(NOW + 60);
    let parent = minted(&authority(&[], &[calls(9)], &[]));
    let short = delegated(&parent, ALICE, ORCHESTRATOR, &[&expiry], &[calls(1)]);
    let other = verify_ok(&delegated(&parent, ALICE, WORKER, &[], &[calls(1)]));
    drop(account(&ledger, &short).reserve(Some(0), NOW).expect("room"));
    for now in [NOW, NOW + 60, NOW + 60 + GRACE_S - 1] {
        let refused = ledger.account(&other, now).reserve(Some(0), now).err();
        assert_eq!(refused, Some(BudgetError::TooManyBlocks), "at {now}");
        let again = account(&ledger, &short).reserve(Some(0), NOW).err();
        assert_eq!(again, Some(exhausted(1, BudgetKind::Calls, 1)), "still counted at {now}");
    }
    let later = NOW + 60 + GRACE_S;
    assert!(ledger.account(&other, later).reserve(Some(0), later).is_ok());
    // The parent's counter has no end, and was not forgotten.
    let parent = account(&ledger, &parent);
    for _ in 0..7 {
        drop(parent.reserve(Some(0), later).expect("seven of nine are left"));
    }
    assert_eq!(parent.reserve(Some(0), later).err(), Some(exhausted(0, BudgetKind::Calls, 9)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever threads do, what is given out never exceeds a limit, and when they are done it is all that was asked
    /// for or all that there was.
    #[test]
    fn concurrent_requests_never_exceed_a_limit(
        parent_calls in 0_u64..60,
        child_calls in 0_u64..60,
        rate_limit in 0_u64..60,
        bytes in 0_u64..2000,
        body in 0_u64..60,
    ) {
        let ledger = Ledger::new();
        let rate = Rate { limit: rate_limit, window_s: 60 };
        let parent = minted(&authority(&[], &[calls(parent_calls), up(bytes)], &[rate]));
        let child = delegated(&parent, ALICE, ORCHESTRATOR, &[], &[calls(child_calls)]);
        let (parent, child) = (account(&ledger, &parent), account(&ledger, &child));
        let (by_parent, by_child) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let sent = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for (account, count) in [(&parent, &by_parent), (&child, &by_child)].repeat(2) {
                let sent = &sent;
                scope.spawn(move || {
                    for _ in 0..25 {
                        if let Ok(reservation) = account.reserve(Some(body), NOW) {
                            count.fetch_add(1, Ordering::Relaxed);
                            if reservation.add_up(body / 2) {
                                sent.fetch_add(body / 2, Ordering::Relaxed);
                            }
                            drop(reservation);
                        }
                    }
                });
            }
        });
        let (by_parent, by_child) = (by_parent.into_inner() as u64, by_child.into_inner() as u64);
        prop_assert!(by_child <= child_calls);
        prop_assert!(by_parent + by_child <= parent_calls.min(rate_limit));
        prop_assert!(sent.into_inner() <= bytes);
        // What is left is exactly what was not given out: refusals in between took nothing.
        let mut left = 0;
        while parent.reserve(Some(0), NOW).is_ok() {
            left += 1;
        }
        prop_assert_eq!(by_parent + by_child + left, parent_calls.min(rate_limit));
    }
}
