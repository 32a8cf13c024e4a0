//! What the settings of every layer are made of: the forms of their values, secrets, and the check of
//! settings that must fit together.
//!
//! Not the settings themselves: each layer declares its own structs, and `config` composes and loads
//! them. A section of the file may be read by several structs, each of which takes the fields that it
//! needs. Invariant: a value that could be read is within the range that its form allows.

mod secret;
mod values;
mod violations;

pub use self::secret::Secret;
pub use self::values::{
    List, bytes, count, duration, flag, list, one_of, optional, optional_duration, whole,
};
pub use self::violations::{Settings, Violation, Violations};
