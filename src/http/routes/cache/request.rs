//! What requests of one value and of many have in common: the address of a value, what was read of its generation,
//! and why a put is refused.

use crate::http::problem::{Code, Problem};
use crate::http::wire::{GenerationState, field};
use crate::model::Invalid;
use crate::model::cache::{CacheKey, CachedValue, Namespace};
use crate::model::generations::{Generation, GenerationFence, GenerationKey, Seen};
use crate::store::{CacheAddress, PutOutcome};

/// Builds the address of a value from a key and a generation's key, each with its pointer in the request. Without a
/// generation's key the value's own key is used.
pub(super) fn address(
    namespace: &Namespace,
    (key_at, key): (&str, &str),
    (generation_at, generation_key): (&str, Option<&str>),
) -> Result<CacheAddress, Problem> {
    let generation_key = generation_key.unwrap_or(key);
    let key = field(key_at, CacheKey::parse(namespace.clone(), key))?;
    let generation_key = field(generation_at, GenerationKey::parse(generation_key))?;
    Ok(CacheAddress { key, generation_key })
}

/// Reads what the writer saw of a generation: a fence, or a number. `at` is the pointer in front of these fields.
///
/// # Errors
/// 428 when it names neither, 400 when it names both or an invalid one.
pub(super) fn seen(fence: Option<&str>, number: Option<i64>, at: &str) -> Result<Seen, Problem> {
    let invalid = |name: &str, why| field(&format!("{at}{name}"), Err(Invalid::new(why)));
    match (fence, number) {
        (Some(fence), None) => {
            field(&format!("{at}fence"), GenerationFence::parse(fence)).map(Seen::Fence)
        }
        (None, Some(number @ 0..)) => Ok(Seen::Number(number)),
        (None, Some(_)) => invalid("generation", "a generation is at least 0"),
        (Some(_), Some(_)) => invalid("fence", "fence and generation exclude each other"),
        (None, None) => {
            let problem = Problem::new(Code::GenerationRequired);
            let why = Code::GenerationRequired.meaning();
            Err(problem.detail(why).at(format!("{at}fence"), why))
        }
    }
}

/// Why a put was refused.
pub(super) enum Refusal {
    /// The generation has moved since it was read.
    Moved(Generation),
    /// The value has more than so many bytes.
    TooLarge { limit_bytes: usize },
    /// The limit on namespaces is reached.
    TooManyNamespaces,
}

/// Separates the value that is held from the reasons why it is not.
pub(super) fn stored(outcome: PutOutcome) -> Result<std::sync::Arc<CachedValue>, Refusal> {
    match outcome {
        PutOutcome::Stored(value) => Ok(value),
        PutOutcome::Moved(now) => Err(Refusal::Moved(now)),
        PutOutcome::TooLarge { limit_bytes } => Err(Refusal::TooLarge { limit_bytes }),
        PutOutcome::TooManyNamespaces => Err(Refusal::TooManyNamespaces),
    }
}

impl Refusal {
    /// Returns the code and a sentence for people.
    pub(super) fn code_and_detail(&self) -> (Code, String) {
        match self {
            Self::Moved(_) => (
                Code::GenerationMoved,
                "the generation has moved since it was read; nothing was changed".to_owned(),
            ),
            Self::TooLarge { limit_bytes } => {
                (Code::ValueTooLarge, format!("the value is larger than {limit_bytes} bytes"))
            }
            Self::TooManyNamespaces => {
                (Code::TooManyNamespaces, "the limit on namespaces is reached".to_owned())
            }
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let (code, detail) = refusal.code_and_detail();
        let problem = Self::new(code).detail(detail);
        match refusal {
            Refusal::Moved(now) => problem.member("moved", &GenerationState::from(&now)),
            Refusal::TooLarge { .. } | Refusal::TooManyNamespaces => problem,
        }
    }
}
