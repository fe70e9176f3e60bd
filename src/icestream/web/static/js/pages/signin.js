// Signing in.

import { signIn } from "../api.js";
import { h } from "../dom.js";

export const signInPage = (onDone) => {
  let trouble = "";
  const draw = async () =>
    h("form", { className: "card narrow", onsubmit: submit },
      h("h1", null, "Sign in"),
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
