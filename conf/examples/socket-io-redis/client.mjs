// The client's half: shows every message once and in order, whatever becomes of connections and servers.
//
//     import { io } from "socket.io-client";
//     const chat = join(io("https://chat.example.com"), (number, { from, text }) => console.log(text));
//     await chat.say("hello");

/**
 * Follows the chat on `socket`, a new one of socket.io-client, and calls `show` with each message that is
 * said from then on, once and in order; `onReady` when it begins to.
 */
export function join(socket, show, onReady = () => {}) {
  const ANSWER_MS = 5000;
  let shown = null; // The number up to which everything has been shown.
  let asking = false;

  // Asks for what is behind `shown`, until there is no more.
  async function catchUp() {
    if (asking) return; // The answer to come is new enough, or the next message shows that it is not.
    asking = true;
    try {
      for (let more = true; more; ) {
        const [newest, messages] = await answer("since", shown);
        if (shown === null) {
          shown = newest;
          onReady();
        }
        for (const [number, message] of messages) showNext(number, message);
        more = messages.length > 0;
      }
    } catch {
      // Disconnected meanwhile, or the server is busy: the next connection or tick asks again.
    } finally {
      asking = false;
    }
  }

  function showNext(number, message) {
    if (number <= shown) return;
    shown = number;
    show(number, message);
  }

  const answer = (event, ...values) =>
    new Promise((resolve, reject) => {
      socket.timeout(ANSWER_MS).emit(event, ...values, (error, ...answers) => (error ? reject(error) : resolve(answers)));
    });

  socket.on("connect", catchUp);
  socket.on("newest", (number) => {
    if (shown === null || number > shown) catchUp();
  });
  socket.on("said", (number, message) => {
    if (shown === null || number > shown + 1) catchUp();
    else showNext(number, message);
  });

  return {
    /** Says `text`, again and again until a server has it; each time with the same key, so that it counts once. */
    async say(text) {
      const key = crypto.randomUUID();
      for (;;) {
        try {
          return await answer("say", key, text);
        } catch {
          // No answer in time. Socket.IO keeps what is said while it is not connected.
        }
      }
    },
  };
}
