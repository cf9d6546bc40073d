//! What is worked out once and asked for in every plan.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// Remembers the newest answer with the question that it answers. It is no part of what its
/// owner is: copies begin without one, and two owners do not differ by it.
pub struct Memo<Q, A>(Mutex<Option<(Q, Arc<A>)>>);

impl<Q, A> Memo<Q, A> {
    /// The remembered answer, if it answers the question that `is_asked` knows. It spares who
    /// asks the making of a question that was answered already.
    pub fn known(&self, is_asked: impl FnOnce(&Q) -> bool) -> Option<Arc<A>> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (question, answer) = known.as_ref()?;
        is_asked(question).then(|| Arc::clone(answer))
    }

    /// Remembers an answer that was found, with all that it was found from.
    pub fn remember(&self, question: Q, answer: A) -> Arc<A> {
        let answer = Arc::new(answer);
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *known = Some((question, Arc::clone(&answer)));
        answer
    }
}

impl<Q: PartialEq, A> Memo<Q, A> {
    /// The answer to `question`: the remembered one, or what `work_out` gives.
    pub fn answer(&self, question: Q, work_out: impl FnOnce(&Q) -> A) -> Arc<A> {
        // Whoever panicked with the lock left a whole answer: it is set in one step.
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*known {
            Some((same, answer)) if *same == question => Arc::clone(answer),
            _ => {
                let answer = Arc::new(work_out(&question));
                *known = Some((question, Arc::clone(&answer)));
                answer
            }
        }
    }
}

impl<Q, A> Default for Memo<Q, A> {
    fn default() -> Self {
        Memo(Mutex::new(None))
    }
}

impl<Q, A> Clone for Memo<Q, A> {
    fn clone(&self) -> Self {
        Memo::default()
    }
}

impl<Q, A> PartialEq for Memo<Q, A> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl<Q, A> fmt::Debug for Memo<Q, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Memo")
    }
}
