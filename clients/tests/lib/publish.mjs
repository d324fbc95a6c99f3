// Publishing over HTTP with Node's own fetch.

/** The path under which a channel's messages are published. */
export function path(channel) {
  return `/v1/channels/${encodeURIComponent(channel)}/messages`;
}

/** Publishes `{event?, payload, messageId?, exclude?}`; gives the answer as fetch does. */
export function post(node, channel, message, headers = {}) {
  return fetch(node.url + path(channel), {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body: JSON.stringify(message),
  });
}

/** Publishes, fails unless it was acknowledged, gives the acknowledgement. */
export async function publish(node, channel, message) {
  const answer = await post(node, channel, message);
  if (!answer.ok) throw new Error(`publish: ${answer.status} ${await answer.text()}`);
  return answer.json();
}
