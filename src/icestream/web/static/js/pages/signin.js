// Signing in.

import { me, signIn } from "../api.js";
import { h } from "../dom.js";

const FAILED = {
  busy: "Too many people are signing in at this moment; try again in a minute.",
  denied: "The provider of accounts has not let you in.",
  late: "This sign-in had ended, or was begun in another browser; try again.",
  "no-group": "You have an account, but none of your groups may look at this server. Ask who runs it.",
  unavailable: "The provider of accounts does not answer; try again later.",
  untrusted: "What the provider of accounts has answered could not be trusted; who runs the server finds the reason in its log.",
};

export const signInPage = (onDone) => {
  let trouble = FAILED[new URLSearchParams(window.location.hash.slice(1)).get("sign-in")] ?? "";
  const draw = async () =>
    h("form", { className: "card narrow", onsubmit: submit },
      h("h1", null, "Sign in"),
      me.provider !== null && h("p", { className: "buttons" },
        h("a", { className: "button", href: "/api/v1/oidc/start?to=" + encodeURIComponent(window.location.pathname) }, `Sign in with ${me.provider}`)),
      h("label", { className: "field", for: "name" }, "Name", h("input", { id: "name", name: "name", autocomplete: "username", required: true, maxlength: 80 })),
      h("label", { className: "field", for: "password" }, "Password", h("input", { id: "password", name: "password", type: "password", autocomplete: "current-password", required: true, maxlength: 1000 })),
      h("p", { className: "bad", role: "alert" }, trouble),
      h("p", { className: "buttons" }, h("button", { type: "submit", className: "primary" }, "Sign in")),
      h("p", { className: "soft small" }, "Whoever runs the server gives access with “icestream access NAME”."));

  async function submit(event) {
    event.preventDefault();
    const form = event.target;
    try {
      await signIn(form.elements.name.value, form.elements.password.value);
      await onDone();
    } catch (error) {
      trouble = error.message;
      form.querySelector("[role=alert]").textContent = trouble;
      form.elements.password.select();
    }
  }
  return { draw };
};
