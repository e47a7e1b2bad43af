//! The dashboard in a real browser, used as people use it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{Chromium, Node, Proxy, soon};

/// A page of a browser of its own.
pub(crate) struct Page {
    steering: Node,
    commands: usize,
    _browser: Chromium,
}

impl Page {
    /// The dashboard of `proxy` on a screen of this size.
    pub(crate) async fn dashboard(proxy: &Proxy, (width, height): (u32, u32)) -> Self {
        let browser = Chromium::open("about:blank");
        let argument = json!({
            "browser": browser.steered_at().await,
            "url": format!("http://{}/", proxy.admin_address()),
            "width": width,
            "height": height,
            "dark": false,
        });
        let steering = Node::script("dashboard.js", &argument);
        soon("the page to be shown", steering.says("shown")).await;
        Self { steering, commands: 0, _browser: browser }
    }

    /// The value of a JavaScript expression, as soon as it is true.
    pub(crate) async fn until(&mut self, expression: &str) -> Value {
        self.asked(expression, json!({ "act": "until", "expression": expression })).await
    }

    /// The value that it has now.
    pub(crate) async fn look(&mut self, expression: &str) -> Value {
        self.asked(expression, json!({ "act": "look", "expression": expression })).await
    }

    /// Waits until the first element of this selector says something with `part` in it; answers what.
    pub(crate) async fn says(&mut self, selector: &str, part: &str) -> String {
        let [selector, part] = [selector, part].map(|text| json!(text));
        let text = format!("document.querySelector({selector})?.innerText");
        let said = self.until(&format!("{text}?.includes({part}) && {text}")).await;
        said.as_str().expect("it is text").to_owned()
    }

    /// Presses keys, one after the other.
    pub(crate) async fn press(&mut self, keys: &[&str]) {
        self.asked("keys to be pressed", json!({ "act": "press", "keys": keys })).await;
    }

    /// Types a text.
    pub(crate) async fn write(&mut self, text: &str) {
        self.asked("a text to be typed", json!({ "act": "type", "text": text })).await;
    }

    /// Clicks what is there, or will be soon.
    pub(crate) async fn click(&mut self, selector: &str) {
        self.asked(selector, json!({ "act": "click", "selector": selector })).await;
    }

    /// On another screen.
    pub(crate) async fn resize(&mut self, (width, height): (u32, u32)) {
        self.asked("another screen", json!({ "act": "resize", "width": width, "height": height })).await;
    }

    /// As somebody wishes it who likes it dark, or without motion.
    pub(crate) async fn dress(&mut self, is_dark: bool, is_still: bool) {
        self.asked("another dress", json!({ "act": "dress", "dark": is_dark, "still": is_still })).await;
    }

    /// From now on this is answered where a URL matches.
    pub(crate) async fn is_answered(&mut self, path: &str, content_type: &str, body: &str) {
        let answer = json!({ "act": "answer", "path": path, "type": content_type, "body": body });
        self.asked("another answer", answer).await;
    }

    /// Loads it again.
    pub(crate) async fn reload(&mut self) {
        self.asked("the page again", json!({ "act": "reload" })).await;
    }

    /// A picture of what is seen, as PNG.
    pub(crate) async fn picture(&mut self) -> Vec<u8> {
        let picture = self.asked("a picture", json!({ "act": "shoot" })).await;
        STANDARD.decode(picture.as_str().expect("it is text")).expect("it is base64")
    }

    /// What axe finds that would keep people from using it.
    pub(crate) async fn barriers(&mut self) -> Value {
        self.asked("what axe says", json!({ "act": "judge" })).await
    }

    /// What the console has complained of so far.
    pub(crate) fn problems(&self) -> Vec<Value> {
        self.steering.said("problem")
    }

    async fn asked(&mut self, what: &str, mut command: Value) -> Value {
        self.commands += 1;
        let id = format!("command {}", self.commands);
        command["id"] = id.clone().into();
        self.steering.tell(&command);
        soon(&format!("the page: {what}"), self.steering.says(&id)).await[0].take()
    }
}
