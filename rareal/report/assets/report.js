// Makes the drawings of the molecule turnable. Without WebGL they stay what they are.
(function () {
  "use strict";
  const source = document.getElementById("molecule-data");
  if (!source || typeof $3Dmol === "undefined") return;
  const probe = document.createElement("canvas");
  if (!probe.getContext("webgl2") && !probe.getContext("webgl")) return;
  const data = JSON.parse(source.textContent);
  const viewers = [];
  document.querySelectorAll(".stage").forEach(function (stage, number) {
    const snapshot = data.snapshots[number];
    stage.classList.add("live");
    const viewer = $3Dmol.createViewer(stage.querySelector(".canvas"), { backgroundColor: "#f5f6f4" });
    if (!viewer) {
      stage.classList.remove("live");
      return;
    }
    const atoms = data.symbols.map(function (symbol, k) {
      const [x, y, z] = snapshot.positions[k];
      return { elem: symbol, serial: k, x: x, y: y, z: z, bonds: [], bondOrder: [] };
    });
    snapshot.bonds.forEach(function ([i, j]) {
      atoms[i].bonds.push(j);
      atoms[i].bondOrder.push(1);
      atoms[j].bonds.push(i);
      atoms[j].bondOrder.push(1);
    });
    const model = viewer.addModel();
    model.addAtoms(atoms);
    viewer.setStyle({}, { stick: { radius: 0.13 }, sphere: { scale: 0.27 } });
    snapshot.stretched.forEach(function ([i, j]) {
      viewer.addCylinder({
        start: atoms[i], end: atoms[j], radius: 0.06, dashed: true, dashLength: 0.16, gapLength: 0.12, color: "#a33333",
      });
    });
    Object.entries(data.labels).forEach(function ([k, text]) {
      viewer.addLabel(text, {
        position: atoms[k], fontSize: 12, fontColor: "#1c1f23", backgroundColor: "white", backgroundOpacity: 0.75,
        alignment: "bottomCenter", screenOffset: { x: 0, y: 20 }, inFront: true,
      });
    });
    viewers.push(viewer);
  });
  // one scale for all, the largest molecule's, and one hand that turns all
  viewers.forEach(function (viewer) { viewer.zoomTo(); });
  const farthest = Math.min.apply(null, viewers.map(function (viewer) { return viewer.getView()[3]; }));
  viewers.forEach(function (viewer) {
    const view = viewer.getView();
    view[3] = farthest;
    viewer.setView(view);
    viewer.zoom(1.12);
    viewer.render();
  });
  viewers.forEach(function (viewer) {
    viewers.forEach(function (other) { if (other !== viewer) viewer.linkViewer(other); });
  });
})();
