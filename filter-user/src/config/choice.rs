//! Settings that are a word out of a few.

use clap::{ArgMatches, ValueEnum};
use toml::{Spanned, de::DeValue};

use super::{
    OnCut, PolicyMode, XdpMode,
    value::{Expected, Value, ValueErrors, refusal, single, string},
};
use crate::{ranges::InputError, ui::output::Output};

/// A word out of a few.
macro_rules! choice {
    ($type:ty, $example:literal) => {
        impl Value for $type {
            const EXAMPLE: &'static str = $example;
            const KIND: &'static str = "word";

            fn kind() -> String {
                let words = <Self as ValueEnum>::value_variants().iter();
                let words: Vec<String> =
                    words.map(|word| format!("\"{}\"", word_of(word))).collect();
                words.join(" or ")
            }

            fn from_toml(key: &str, value: &Spanned<DeValue<'_>>) -> Result<Self, ValueErrors> {
                let text = string::<Self>(key, value, Expected::Whole("a word"))?;
                <Self as ValueEnum>::from_str(text, false).map_err(|_| {
                    let words: Vec<String> = <Self as ValueEnum>::value_variants()
                        .iter()
                        .map(|word| format!("`{}`", word_of(word)))
                        .collect();
                    let cause = format!("invalid value `{text}` for `{key}`");
                    let hint = format!("use one of {}", words.join(", "));
                    vec![(value.span(), refusal(cause, hint))]
                })
            }

            fn from_args(matches: &ArgMatches, id: &str) -> Result<Self, Vec<InputError>> {
                Ok(single(matches, id))
            }

            fn json(&self) -> serde_json::Value {
                word_of(self).into()
            }
        }
    };
}

choice!(Output, "\"text\"");
choice!(OnCut, "\"trial\"");
choice!(PolicyMode, "\"enforce\"");
choice!(XdpMode, "\"auto\"");

/// The word for a choice on the command line.
fn word_of<T: ValueEnum>(choice: &T) -> String {
    let value = choice.to_possible_value();
    value.expect("no choice is hidden").get_name().to_owned()
}
