// The gateway that was chosen is passed on.
for (const link of document.querySelectorAll('h2 a')) link.search = location.search;
// What a backend does is done where there is one: `docker compose up` starts it.
const answer = await fetch('api/nodes').catch(() => undefined);
document.querySelector('#alone').hidden = answer?.ok === true;
