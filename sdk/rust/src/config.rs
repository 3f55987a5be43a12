//! What an operator sets for a plugin: [`Configuration`] is a struct of values, read once from the cells that
//! `init` brings. There is no JSON in it and no default that the host does not know.

use crate::cell::{Cell, Reader};
use crate::spec::ConfigSpec;
use crate::types::{Field, text};

/// A plugin's configuration: derive it with `#[derive(Config)]`, or use the prelude's `Config` for none.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a configuration",
    label = "the first argument of a plugin's function is its configuration",
    note = "write `#[derive(Config)] struct {Self} {{ … }}`, or take `_: &Config` where there is nothing to set"
)]
pub trait Configuration: Sized + Send + Sync + 'static {
    /// The values in declaration order.
    const ITEMS: &'static [ConfigSpec];

    /// Reads one cell a value, in declaration order.
    ///
    /// # Errors
    /// What is missing or does not fit, for the operator.
    fn read(reader: &mut Reader<'_>) -> std::result::Result<Self, String>;

    /// Refuses values that fit their types but make no sense; `#[config(check = function)]` supplies it.
    ///
    /// # Errors
    /// What is wrong, for the operator; the pipeline does not start.
    fn check(&self) -> std::result::Result<(), String> {
        Ok(())
    }
}

/// Nothing to configure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NoConfig;

impl Configuration for NoConfig {
    const ITEMS: &'static [ConfigSpec] = &[];

    fn read(_reader: &mut Reader<'_>) -> std::result::Result<Self, String> {
        Ok(Self)
    }
}

/// A type that a configuration value can have: `bool`, `i64`, `f64` or `String`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a configuration value",
    note = "use bool, i64, f64 or String"
)]
pub trait ConfigValue: Sized {
    /// The type's name in `describe`.
    const TYPE: &'static str;

    /// Reads a value's bytes; `None` when they are not of the type.
    fn from_value(value: &[u8]) -> Option<Self>;
}

macro_rules! value {
    ($($rust:ty, $name:literal;)*) => {$(
        impl ConfigValue for $rust {
            const TYPE: &'static str = $name;

            fn from_value(value: &[u8]) -> Option<Self> {
                Field::from_value(value)
            }
        }
    )*};
}

value! {
    bool, "boolean";
    i64, "int64";
    f64, "float64";
    String, "text";
}

impl Reader<'_> {
    /// The next configuration value; called by generated code.
    #[doc(hidden)]
    pub fn config<T: ConfigValue>(&mut self, name: &str) -> std::result::Result<T, String> {
        match self.cell() {
            Some(Cell::Value(value)) => T::from_value(value)
                .ok_or_else(|| format!("configuration value {name:?} is not of type {}", T::TYPE)),
            _ => Err(format!("configuration value {name:?} is not set")),
        }
    }
}

/// What `init` brings: the pipeline's name, the log level, the configuration.
pub(crate) struct Setup<C> {
    /// `debug`, `info`, `warn` or `error`.
    #[cfg_attr(
        not(target_arch = "wasm32"),
        allow(dead_code, reason = "only a component has a pipeline")
    )]
    pub(crate) level: String,
    /// The checked configuration.
    pub(crate) config: C,
}

impl<C: Configuration> Setup<C> {
    /// Reads the cells of `init`.
    pub(crate) fn read(bytes: &[u8]) -> std::result::Result<Self, String> {
        let mut reader = Reader::new(bytes);
        let mut word = |what: &str| match reader.cell() {
            Some(Cell::Value(value)) => text(value)
                .map(str::to_owned)
                .ok_or_else(|| what.to_owned()),
            _ => Err(format!("the host's setup holds no {what}")),
        };
        word("pipeline name")?;
        let level = word("log level")?;
        let config = C::read(&mut reader)?;
        config.check()?;
        Ok(Self { level, config })
    }
}
