//! What a tool answered, as plain text and structured content.

use rmcp::model::{CallToolResult, ContentBlock, ResourceContents};
use serde_json::Value;

/// What a tool answered.
#[derive(Debug, Clone, PartialEq)]
pub struct CallReply {
    /// Whether the tool reports that it failed.
    pub is_error: bool,
    /// Its text blocks and embedded texts, joined by newlines; a block that is no text is replaced by a description.
    pub text: String,
    /// Its structured content.
    pub structured: Option<Value>,
}

impl From<CallToolResult> for CallReply {
    fn from(result: CallToolResult) -> Self {
        let texts: Vec<String> = result.content.iter().map(text_of).collect();
        Self {
            is_error: result.is_error.unwrap_or(false),
            text: texts.join("\n"),
            structured: result.structured_content,
        }
    }
}

fn text_of(block: &ContentBlock) -> String {
    match block {
        ContentBlock::Text(block) => block.text.clone(),
        ContentBlock::Image(image) => format!("[an image, {}]", image.mime_type),
        ContentBlock::Audio(audio) => format!("[a sound, {}]", audio.mime_type),
        ContentBlock::ResourceLink(link) => link.uri.clone(),
        ContentBlock::Resource(embedded) => match &embedded.resource {
            ResourceContents::TextResourceContents { text, .. } => text.clone(),
            ResourceContents::BlobResourceContents { uri, .. } => format!("[data, {uri}]"),
            _ => "[a resource]".to_owned(),
        },
        _ => "[a block of an unknown kind]".to_owned(),
    }
}
