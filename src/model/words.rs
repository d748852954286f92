//! Enums whose values are written as one word each, the same in JSON, in columns and in texts.

/// Gives an enum the list of its values and their written form.
///
/// The words must be those that `serde(rename_all = "snake_case")` gives; a test of each enum's file compares them.
macro_rules! words {
    ($name:ident { $($value:ident => $word:literal),+ $(,)? }) => {
        impl $name {
            /// Every value, in the order of the declaration.
            pub const ALL: [Self; [$($word),+].len()] = [$(Self::$value),+];

            /// Returns the value's word.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$value => $word),+
                }
            }

            /// Reads what [`Self::as_str`] wrote.
            pub fn parse(word: &str) -> Option<Self> {
                Self::ALL.into_iter().find(|value| value.as_str() == word)
            }
        }
    };
}

pub(super) use words;

#[cfg(test)]
mod tests {
    use crate::model::{ItemState, MemoryKind, RiskKind, Stage, WorkflowStatus};

    macro_rules! assert_words {
        ($($name:ident)+) => {
            $(for value in $name::ALL {
                let json = serde_json::to_value(value).expect("serialises");
                assert_eq!(json, value.as_str());
                assert_eq!($name::parse(value.as_str()), Some(value));
            })+
        };
    }

    #[test]
    fn words_are_the_same_in_json_and_text() {
        assert_words!(ItemState MemoryKind RiskKind Stage WorkflowStatus);
        assert_eq!(ItemState::parse("unknown"), None);
    }
}
