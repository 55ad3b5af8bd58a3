// Keeps the event stream open, for ever: reconnects by itself, and says when the page is stale.

const SILENT = 6000; // ms without a sign of life before the page counts as stale
const LONGEST = 10000; // ms between two attempts, at most

/**
 * @param {string} url
 * @param {(tick: object) => void} onTick every message, about one a second
 * @param {(live: boolean) => void} onLink whenever the link comes or goes
 */
export function follow(url, onTick, onLink) {
  let source = null;
  let heard = performance.now();
  let wait = 500;
  let again = 0;

  function open() {
    again = 0;
    heard = performance.now();
    source = new EventSource(url);
    source.onmessage = (event) => {
      heard = performance.now();
      wait = 500;
      onTick(JSON.parse(event.data));
      onLink(true);
    };
    source.onerror = () => {
      onLink(false);
      reopen();
    };
  }

  function reopen() {
    source?.close();
    source = null;
    if (again) return;
    again = setTimeout(open, wait * (0.7 + 0.6 * Math.random()));
    wait = Math.min(LONGEST, wait * 2);
  }

  setInterval(() => {
    if (source !== null && performance.now() - heard > SILENT) {
      onLink(false);
      reopen();
    }
  }, 1000);
  addEventListener("online", () => { if (again) { clearTimeout(again); open(); } });
  open();
}
