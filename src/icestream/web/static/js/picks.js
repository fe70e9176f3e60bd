// Adding and removing picks by hand: on the picture with mouse or finger, or with arrow keys and Enter; nothing is sent before it is saved.

import { api, post } from "./api.js";
import { doOnce, toast } from "./act.js";
import { h } from "./dom.js";

const NEAR = 0.02, STEP = 0.01;

export class PickEditor {
  constructor(session, item, refresh) {
    Object.assign(this, { session, item, refresh, step: null, added: [], removed: new Set(), cursor: null });
  }

  begin(image, overlay) {
    Object.assign(this, { step: overlay.step, added: [], removed: new Set(), cursor: [image.width_px / 2, image.height_px / 2] });
    this.refresh();
  }

  end() {
    Object.assign(this, { step: null, added: [], removed: new Set(), cursor: null });
    this.refresh();
  }

  edited(image) {
    return image.overlays.find((one) => one.step === this.step) ?? null;
  }

  // What makes the picture a surface on which picks are edited.
  surface(image) {
    if (!this.edited(image)) return { "aria-hidden": "true" };
    return {
      className: "editing", tabindex: 0, role: "application",
      "aria-label": "Picks: arrow keys move the cross, Enter adds a pick or removes the one that is there",
      onclick: (event) => {
        const box = event.currentTarget.getBoundingClientRect();
        this.touch(image, (event.clientX - box.left) / box.width * image.width_px, (event.clientY - box.top) / box.height * image.height_px);
      },
      onkeydown: (event) => this.key(image, event),
    };
  }

  key(image, event) {
    const by = STEP * image.width_px * (event.shiftKey ? 5 : 1);
    const moves = { ArrowLeft: [-by, 0], ArrowRight: [by, 0], ArrowUp: [0, -by], ArrowDown: [0, by] };
    if (event.key === "Escape") { this.end(); return; }
    if (event.key === "Enter" || event.key === " ") { event.preventDefault(); this.touch(image, ...this.cursor); return; }
    const move = moves[event.key];
    if (!move) return;
    event.preventDefault();
    this.cursor = [Math.min(image.width_px, Math.max(0, this.cursor[0] + move[0])), Math.min(image.height_px, Math.max(0, this.cursor[1] + move[1]))];
    this.refresh();
  }

  // A pick that is there is removed, or kept after all; where none is, one is added.
  touch(image, x, y) {
    const overlay = this.edited(image), near = Math.max(overlay.radius_px, NEAR * image.width_px);
    const nearest = (places) => places.map(([px, py], index) => [Math.hypot(px - x, py - y), index]).sort((a, b) => a[0] - b[0])[0] ?? [Infinity, -1];
    const [mine, own] = nearest(this.added), [distance, index] = nearest(overlay.xy);
    this.cursor = [x, y];
    if (mine <= near && mine <= distance) this.added.splice(own, 1);
    else if (distance <= near) this.removed.has(overlay.pids[index]) ? this.removed.delete(overlay.pids[index]) : this.removed.add(overlay.pids[index]);
    else this.added.push([x, y]);
    this.refresh();
  }

  // While picks are edited, those of other steps would lie over them.
  isOther(image, overlay) {
    return this.edited(image) !== null && overlay.step !== this.step;
  }

  isRemoved(overlay, place) {
    return overlay.step === this.step && this.removed.has(overlay.pids[place]);
  }

  marks(image) {
    const overlay = this.edited(image);
    if (!overlay) return null;
    const [x, y] = this.cursor, arm = 0.015 * image.width_px;
    return h("g", { className: "marks" },
      this.added.map(([cx, cy]) => h("circle", { cx: cx.toFixed(1), cy: cy.toFixed(1), r: overlay.radius_px.toFixed(1), className: "added" })),
      h("path", { className: "cross", d: `M${x - arm} ${y}h${2 * arm}M${x} ${y - arm}v${2 * arm}` }));
  }

  controls(image, overlay, several) {
    if (this.step !== overlay.step) return h("p", { className: "buttons" }, h("button", { type: "button", disabled: this.step !== null, onclick: () => this.begin(image, overlay) }, several ? `Edit ${overlay.label} …` : "Edit picks …"));
    const told = [this.added.length && `${this.added.length} to add`, this.removed.size && `${this.removed.size} to remove`].filter(Boolean).join(", ");
    return h("p", { className: "buttons", role: "status" }, h("span", { className: "soft" }, told || "Click on the picture to add a pick, or on a pick to remove it."),
      h("button", { type: "button", className: "primary", disabled: !told, onclick: () => this.save(image, told) }, "Save picks …"),
      h("button", { type: "button", onclick: () => this.end() }, "Cancel"));
  }

  async save(image, told) {
    const question = { title: "Save the picks?", text: `${told.charAt(0).toUpperCase()}${told.slice(1)}. Only what depends on the picks of this micrograph is computed again.`, verb: "Save", reason: true };
    const answer = await doOnce(question, ({ reason }) => post(api("sessions", this.session, "exposures", this.item, "picks"), {
      step: this.step, add: this.added.map(([x, y]) => [image.height_px - y, x]), remove: [...this.removed], reason,
    }));
    if (answer === null) return;
    toast(answer.text, { done: "good", refused: "bad" }[answer.state] ?? "odd");
    if (answer.state !== "refused") this.end();
  }
}
