//! A value that is made once, by loom's means: what was done before it was made is seen by whoever finds it.

use std::sync::OnceLock as Value;

use loom::sync::Mutex;
use loom::sync::atomic::{AtomicBool, Ordering};

pub(super) struct OnceLock<T> {
    made: AtomicBool,
    making: Mutex<()>,
    value: Value<T>,
}

impl<T> OnceLock<T> {
    pub(super) fn new() -> Self {
        Self { made: AtomicBool::new(false), making: Mutex::new(()), value: Value::new() }
    }

    pub(super) fn get(&self) -> Option<&T> {
        self.made.load(Ordering::Acquire).then(|| self.value.get()).flatten()
    }

    pub(super) fn get_or_init(&self, make: impl FnOnce() -> T) -> &T {
        let made = self.making.lock().expect("nobody panics");
        let value = self.value.get_or_init(make);
        self.made.store(true, Ordering::Release);
        drop(made);
        value
    }
}
