(function () {
  "use strict";
  const root = document.documentElement;
  const every = Number(root.dataset.refresh) * 1000;
  const remember = {
    get(name) { try { return sessionStorage.getItem(name); } catch { return null; } },
    set(name, value) { try { sessionStorage.setItem(name, value); } catch { return; } },
  };

  const scroll = remember.get("scroll");
  if (scroll !== null) { window.scrollTo(0, Number(scroll)); }
  window.addEventListener("pagehide", () => remember.set("scroll", String(window.scrollY)));

  for (const part of document.querySelectorAll("details[id]")) {
    if (remember.get("open:" + part.id) === "yes") { part.open = true; }
    part.addEventListener("toggle", () => remember.set("open:" + part.id, part.open ? "yes" : "no"));
  }

  const button = document.getElementById("refresh");
  if (!every || !button) { return; }
  let paused = remember.get("paused") === "yes";
  let due = Date.now() + every;
  function show() {
    const left = Math.max(0, Math.ceil((due - Date.now()) / 1000));
    button.textContent = paused ? "Paused – go on" : "Updates in " + left + " s – pause";
    button.setAttribute("aria-pressed", String(paused));
  }
  button.hidden = false;
  button.addEventListener("click", () => {
    paused = !paused;
    due = Date.now() + every;
    remember.set("paused", paused ? "yes" : "no");
    show();
  });
  window.setInterval(() => {
    if (!paused && Date.now() >= due) { due = Date.now() + every; window.location.reload(); }
    show();
  }, 500);
  show();
})();
