//! Carries every new student from Supabase to the right deal in amoCRM: once, and never forgotten.
//!
//! The modules, in the order of the data flow. `ARCHITECTURE.md` describes the whole.

/// What a person or a supervisor can ask for.
pub mod cli;

/// The composition root, and the settings it starts from.
pub mod app;
pub mod config;
pub mod telemetry;

/// The nouns that every part shares.
pub mod domain;

/// Takes deliveries.
pub mod http;

/// Shows how it is, and lets a person act.
pub mod admin;

/// Keeps them.
pub mod inbox;

/// Brings them into step.
pub mod sync;

/// Tells a person when only a person can help.
pub mod alerts;

/// The neighbour that is no package of its own, as `amocrm` is.
pub mod supabase;

/// What people read: words in two languages, and a student's story.
pub mod story;
pub mod words;
