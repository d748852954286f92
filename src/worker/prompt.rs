//! How a prompt reaches a program: as an argument, on stdin, or in a file.

use super::Task;
use super::template::fill;
use crate::config::{AgentPreset, PromptBy};

/// How a prompt becomes an argv and a stdin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Prompt {
    argv: Vec<String>,
    by: By,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum By {
    Placeholder,
    Preset(PromptBy),
}

impl Prompt {
    /// Returns the one of the config's `command`: the prompt replaces `{task}` in it, or goes to stdin.
    pub(super) fn template(argv: &[String]) -> Self {
        let named = argv.iter().any(|word| word.contains("{task}"));
        Self {
            argv: argv.to_vec(),
            by: if named {
                By::Placeholder
            } else {
                By::Preset(PromptBy::Stdin)
            },
        }
    }

    /// Returns the one of an agent program.
    pub(super) fn preset(preset: &AgentPreset) -> Self {
        Self {
            argv: preset.argv.iter().map(|&word| word.to_owned()).collect(),
            by: By::Preset(preset.prompt),
        }
    }

    /// Returns the program that gets the prompt.
    pub(super) fn program(&self) -> Option<&str> {
        self.argv.first().map(String::as_str)
    }

    /// Returns the argv and the stdin for `text`; a prompt that goes by file is written below `logs`.
    pub(super) fn render(
        &self,
        text: &str,
        task: &Task,
    ) -> std::io::Result<(Vec<String>, Option<Vec<u8>>)> {
        let mut argv: Vec<String> = self
            .argv
            .iter()
            .map(|word| fill(word, text, task))
            .collect();
        match self.by {
            By::Placeholder => Ok((argv, None)),
            By::Preset(PromptBy::Stdin) => Ok((argv, Some(text.as_bytes().to_vec()))),
            By::Preset(PromptBy::Argument) => {
                argv.push(text.to_owned());
                Ok((argv, None))
            }
            By::Preset(PromptBy::FileAfter(flag)) => {
                let file = task.logs.join("prompt");
                std::fs::create_dir_all(&task.logs)?;
                std::fs::write(&file, text)?;
                argv.extend([flag.to_owned(), file.display().to_string()]);
                Ok((argv, None))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_goes_where_the_template_says() {
        let argv = |words: &[&str]| words.iter().map(|&w| w.to_owned()).collect::<Vec<_>>();
        let by_stdin = Prompt::template(&argv(&["agent", "-p"]));
        let (words, stdin) = by_stdin.render("hi", &Task::example()).expect("renders");
        assert_eq!(
            (words, stdin),
            (argv(&["agent", "-p"]), Some(b"hi".to_vec()))
        );
        let by_word = Prompt::template(&argv(&["agent", "{task}"]));
        let (words, stdin) = by_word.render("hi", &Task::example()).expect("renders");
        assert_eq!((words, stdin), (argv(&["agent", "hi"]), None));
    }
}
