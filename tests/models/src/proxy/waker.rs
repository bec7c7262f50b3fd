//! What `futures_util::task::AtomicWaker` promises: of a `register` and a `wake` that meet, either the waker is woken or
//! who registers sees all that was before the `wake`. Its own atomics are not modelled.

use std::task::Waker;

use loom::sync::Mutex;

#[derive(Default)]
pub(super) struct AtomicWaker(Mutex<Option<Waker>>);

impl AtomicWaker {
    pub(super) fn new() -> Self {
        Self::default()
    }

    pub(super) fn register(&self, waker: &Waker) {
        *self.0.lock().expect("nobody panics") = Some(waker.clone());
    }

    pub(super) fn take(&self) -> Option<Waker> {
        self.0.lock().expect("nobody panics").take()
    }

    pub(super) fn wake(&self) {
        if let Some(waker) = self.take() {
            waker.wake();
        }
    }
}
